"""Builds the page and serves it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Sequence

import gradio as gr
from starlette.routing import BaseRoute

from peft_core.records import View
from ui.answering import AnsweringProcess
from ui.api import api
from ui.child import Commands
from ui.compare import compare_tab
from ui.compare_routes import compare_routes
from ui.compare_service import CompareService
from ui.engine import Engine, LocalEngine, Warmup
from ui.exports import ExportCommand, Exports
from ui.frame import frame, head
from ui.learn import learn_tab
from ui.logins import sign_in_offered
from ui.papers import papers_tab
from ui.papers_routes import papers_routes
from ui.papers_service import Papers
from ui.playground import playground_tab
from ui.playground_routes import playground_routes
from ui.playground_service import Playground
from ui.pushes import PushCommand, Pushes
from ui.routes import routes
from ui.runs import runs_tab
from ui.runs_routes import runs_routes
from ui.runs_service import RunsService
from ui.service import Runs, Service, shipped_example
from ui.tryit import tryit_tab
from ui.tryit_routes import tryit_routes
from ui.tryit_service import TryService
from ui.uploads import Uploads

log = logging.getLogger(__name__)
SYSTEM_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
SYSTEM_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
TABS = (
    ("compare", "Compare", compare_tab),
    ("playground", "Rank playground", playground_tab),
    ("runs", "Runs", runs_tab),
    ("try", "Try it", tryit_tab),
    ("papers", "Papers", papers_tab),
    ("learn", "Learn", learn_tab),
)
"""Id, title, content; in the order of the page."""


def theme() -> gr.themes.Base:
    """A quiet theme with the fonts of the visitor's system: nothing is loaded from other hosts."""
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", radius_size="sm", font=SYSTEM_FONT, font_mono=SYSTEM_MONO
    )


def build(service: Service | None = None) -> gr.Blocks:
    """The page. service: what the functions for programs ask; without one the page has none."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with gr.Blocks(title="RankLab", analytics_enabled=False, fill_width=True) as page:
        frame(TABS)
        if sign_in_offered():
            gr.LoginButton(visible=False)  # what makes Gradio serve login/huggingface; the Runs tab links to it
        if service:
            api(service)
    page.queue(default_concurrency_limit=4, max_size=64)
    return page


def serve(
    runs: Runs,
    engine: Engine,
    example: View | None,
    uploads: Uploads,
    host: str | None = None,
    port: int | None = None,
    more: Sequence[BaseRoute] = (),
) -> tuple[gr.Blocks, str]:
    """Serve the page in background threads; the Blocks and their address. more: the other tabs' own addresses."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warmup = Warmup(engine)
    service = Service(runs, engine, example, uploads)
    tabs = [*playground_routes(Playground(runs, engine)), *papers_routes(Papers(engine))]
    own = [*tabs, *compare_routes(CompareService(service, engine)), *routes(service, warmup, uploads)]
    page = build(service)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        app_kwargs={"routes": [*more, *own]},
        theme=theme(),
        head=head(),
        prevent_thread_lock=True,
        ssr_mode=False,
        mcp_server=None,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        max_file_size="20mb",
        quiet=True,
    )
    warmup.start()
    return page, address


def launch(host: str | None = None, port: int | None = None) -> None:
    """Serve until interrupted. host, port: default GRADIO_SERVER_NAME and GRADIO_SERVER_PORT, else 127.0.0.1:7860."""
    from peft_core.runs import Supervisor, home

    chosen = port if port is not None else int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    with Supervisor(home(), server=True) as supervisor:
        uploads = Uploads(home() / "uploads")
        uploads.sweep()
        commands = Commands(home())
        exports = Exports(home() / "exports", ExportCommand(commands))
        exports.sweep()
        pushes = Pushes(home() / "pushes", PushCommand(commands))
        pushes.sweep()
        engine, models = LocalEngine(), AnsweringProcess(home())
        tries = TryService(supervisor, models, engine, uploads)
        more = [*runs_routes(RunsService(supervisor, exports, pushes)), *tryit_routes(tries)]
        page, address = serve(supervisor, engine, shipped_example(), uploads, host, chosen, more)
        log.warning("RankLab is on %s", address)
        _wait()
        ending = threading.Thread(target=supervisor.close, name="ending")
        ending.start()  # before all else: nothing new starts, and workers save while the page closes
        page.close()
        exports.close()
        pushes.close()
        commands.close()
        tries.close()
        models.close()
        ending.join()


def _wait() -> None:
    """Until Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopped.set())
    try:
        while not stopped.wait(1.0):
            pass
    except KeyboardInterrupt:
        log.info("stopping")
