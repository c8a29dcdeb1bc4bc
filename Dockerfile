# The page in a container, with the build of torch that pip finds by itself; for another one:
#   docker build --build-arg TORCH_INDEX=ADDRESS -t ranklab .
FROM python:3.11-slim

# Where the wheels of torch come from: the address of PyTorch's wheel index for the device, as its installation page gives
# it. Without one, and for everything else, pip's own index.
ARG TORCH_INDEX=

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

RUN useradd --create-home --uid 1000 user && mkdir -p /home/user/app /home/user/ranklab && chown -R user:user /home/user
USER user
ENV HOME=/home/user VIRTUAL_ENV=/home/user/venv PATH=/home/user/venv/bin:/usr/local/bin:/usr/bin:/bin
WORKDIR /home/user/app
RUN python3 -m venv /home/user/venv

# Layers from the largest and steadiest to the smallest: torch, the other requirements, the code. What is marked as heavy
# is left out by `scripts/replay_dockerfile.py --light`.
COPY --chown=user:user requirements.txt ./
# replay: heavy
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$(grep '^torch==' requirements.txt)"
# replay: heavy
RUN pip install -r requirements.txt
COPY --chown=user:user . .

# Without a volume on this folder the runs are gone with the container.
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860 RANKLAB_HOME=/home/user/ranklab
VOLUME /home/user/ranklab
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/health', timeout=8)"]
CMD ["python", "app.py"]
