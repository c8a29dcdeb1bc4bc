"""The Dockerfile says what it should, and its commands run in a Debian root where one can be made.

RANKLAB_TEST_DOCKER=no leaves the root out. RANKLAB_TEST_DOCKER=full installs torch and the rest too and starts the page
in it (minutes, and the network of pip); RANKLAB_TEST_DOCKER_ARGUMENTS is then given to the script, for a machine whose
wheels lie elsewhere.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from scripts.replay_dockerfile import Image, Refused, Step, copied, inside, parse, replay, run, why_not

ROOT = Path(__file__).parents[2]
STEPS = parse((ROOT / "Dockerfile").read_text(encoding="utf-8"))
FULL = os.environ.get("RANKLAB_TEST_DOCKER") == "full"


def of(name: str) -> list[Step]:
    return [step for step in STEPS if step.name == name]


def test_the_image_is_what_a_host_expects():
    assert of("FROM")[0].text == "python:3.11-slim" and of("ARG")[0].text.startswith("TORCH_INDEX=")
    assert [step.text for step in of("USER")] == ["user"] and "--uid 1000 user" in of("RUN")[0].text
    last_root = STEPS.index(of("USER")[0])
    assert all(STEPS.index(step) > last_root for step in of("CMD") + of("COPY") + of("RUN")[1:])
    assert [step.text for step in of("EXPOSE")] == ["7860"] and "/health" in of("HEALTHCHECK")[0].text
    environment = " ".join(step.text for step in of("ENV"))
    assert "GRADIO_SERVER_NAME=0.0.0.0" in environment and "GRADIO_SERVER_PORT=7860" in environment
    assert f"RANKLAB_HOME={of('VOLUME')[0].text}" in environment


def test_the_requirements_are_a_layer_below_the_code():
    copies = [step.text.split()[-2] for step in of("COPY")]
    assert copies == ["requirements.txt", "."]
    assert all(STEPS.index(step) < STEPS.index(of("COPY")[1]) for step in of("RUN"))


def test_what_is_copied_is_the_product_alone():
    names = {path.relative_to(ROOT).as_posix() for path in copied(ROOT, ROOT)}
    assert {"app.py", "requirements.txt", "ui/launching.py", "peft_core/cli.py", "assets/theorem.json"} <= names
    unwanted = re.compile(r"^(tests|docs|\.git|\.venv|\.ci|out|runs)(/|$)|__pycache__|\.pyc$|_cache/|^ranklab\.toml$")
    assert not [name for name in names if unwanted.search(name)]


def test_compose_keeps_the_runs_in_a_volume():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    service = compose["services"]["ranklab"]
    assert service["volumes"] == [f"runs:{of('VOLUME')[0].text}"] and "runs" in compose["volumes"]
    assert service["ports"] == ["127.0.0.1:7860:7860"]
    assert set(service["build"]["args"]) == {step.text.partition("=")[0] for step in of("ARG")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM a\nADD x y", "ADD is not known here"),
        ("FROM a\nFROM b", "Exactly one FROM"),
        ("RUN true\nFROM a", "at the beginning"),
        ("FROM a\nRUN --mount=type=cache,target=/x pip", "mounts are not known"),
        ("FROM a\nCOPY --from=b x y", "COPY takes --chown alone"),
        ("FROM a\nRUN one \\", "ends in the middle"),
        ("FROM a\nRUN cat <<EOF", "here-documents"),
    ],
)
def test_what_the_replay_does_not_know_is_refused(text, said):
    with pytest.raises(Refused, match=said):
        parse(text)


def test_lines_are_joined_and_marks_belong_to_the_next():
    steps = parse("# replay: heavy\nFROM a\n\nRUN one && \\\n  # a comment\n  two\n")
    assert steps == [Step("FROM", "a", True, 2), Step("RUN", "one && two", False, 4)]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The image, made from a copy of the files that are copied."""
    if said := "RANKLAB_TEST_DOCKER=no" if os.environ.get("RANKLAB_TEST_DOCKER") == "no" else why_not():
        pytest.skip(f"the Dockerfile's commands are not tried: {said}")
    context = tmp_path_factory.mktemp("context")
    for path in [*copied(ROOT, ROOT), ROOT / ".dockerignore"]:
        to = context / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    given = shlex.split(os.environ.get("RANKLAB_TEST_DOCKER_ARGUMENTS", ""))
    binds = tuple(Path(given[at + 1]) for at, word in enumerate(given) if word == "--bind")
    arguments = dict(given[at + 1].split("=", 1) for at, word in enumerate(given) if word == "--build-arg")
    made = Image(tmp_path_factory.mktemp("image") / "root", context, binds, arguments=arguments)
    (base, *rest) = STEPS
    try:
        replay([base], made, light=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the Dockerfile's commands are not tried: debootstrap ended with {error.returncode}")
    replay(rest, made, light=not FULL)
    yield made
    shutil.rmtree(made.root, ignore_errors=True)


@pytest.mark.timeout(3600)
def test_its_commands_run_and_the_user_is_not_root(image):
    said = run(
        image, ["/bin/sh", "-c", "id -u; id -g; pwd; command -v python; touch $RANKLAB_HOME/x; echo $HOME"], quiet=True
    )
    assert said.stdout.split() == ["1000", "1000", "/home/user/app", "/home/user/venv/bin/python", "/home/user"], said
    owners = {path.stat().st_uid for path in (image.root / "home/user/app").rglob("*")}
    assert owners == {1000} and not (image.root / "home/user/app/tests").exists()
    assert run(image, ["/bin/sh", "-c", "touch /etc/x"], quiet=True).returncode != 0
    assert run(image, ["python", "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 11))"]).returncode == 0


@pytest.mark.skipif(
    not FULL, reason="RANKLAB_TEST_DOCKER=no leaves the root out; =full installs all and starts the page"
)
@pytest.mark.timeout(3600)
def test_the_page_starts_in_it(image):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(inside(image, image.command, {"GRADIO_SERVER_PORT": str(port)}))
    try:
        end = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(1)
        check = [word.replace("7860", str(port)) for word in image.health]
        assert run(image, check).returncode == 0
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
