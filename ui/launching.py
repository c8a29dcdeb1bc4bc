"""Builds the page and serves it."""

from __future__ import annotations

import html
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from peft_core.records import View, public_mode
from peft_core.runs import Supervisor
from peft_core.runs.borrowed import BorrowedExecutor
from ui.answering import AnsweringProcess
from ui.api import api
from ui.child import Commands
from ui.compare import compare_tab
from ui.compare_routes import compare_routes
from ui.compare_service import CompareService
from ui.engine import Engine, LocalEngine, Warmup
from ui.exports import ExportCommand, Exports
from ui.frame import frame, head
from ui.guard import Guard, Rules
from ui.health_routes import health_routes
from ui.house import House
from ui.learn import learn_tab
from ui.logins import sign_in_offered
from ui.metrics import Counting, Metrics
from ui.papers import papers_tab
from ui.papers_routes import papers_routes
from ui.papers_service import Papers
from ui.passwords import Accounts, accounts_of
from ui.playground import playground_tab
from ui.playground_routes import playground_routes
from ui.playground_service import Playground
from ui.pushes import PushCommand, Pushes
from ui.routes import routes
from ui.runs import runs_tab
from ui.runs_routes import runs_routes
from ui.service import Runs, Service, shipped_example
from ui.settings import Settings
from ui.storage import choose_home, on_space
from ui.tryit import tryit_tab
from ui.tryit_routes import tryit_routes
from ui.tryit_service import TryService
from ui.uploads import Uploads
from ui.zerogpu import borrowed_executor, on_zero_gpu

log = logging.getLogger(__name__)
SYSTEM_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
SYSTEM_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
LEAVE_SECONDS = 9.5
"""After a signal to end. What is not written then is as after a kill, from which everything recovers."""
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


def build(service: Service | None = None, notice: str = "") -> gr.Blocks:
    """The page. service: what the functions for programs ask; without one the page has none. notice: stands on top."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with gr.Blocks(title="RankLab", analytics_enabled=False, fill_width=True) as page:
        if notice:
            gr.HTML(f'<p class="rl-notice" role="status">{html.escape(notice)}</p>', apply_default_css=False)
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
    notice: str = "",
    middleware: Sequence[Middleware] = (),
    *,
    service: Service | None = None,
    rules: Rules | None = None,
    accounts: Accounts | None = None,
) -> tuple[gr.Blocks, str]:
    """Serve the page in background threads; the Blocks and their address.

    Args:
        runs: whose updates can be fitted. more: the other tabs' own addresses. notice: what stands on top of the page.
        middleware: what every request passes through before the guard. service: by default one that everybody may
            use. rules: of the house. accounts: who may log in; by default no login is asked for.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warmup = Warmup(engine)
    service = service or Service(runs, engine, example, uploads)
    tabs = [*playground_routes(Playground(runs, engine)), *papers_routes(Papers(engine))]
    own = [*tabs, *compare_routes(CompareService(service, engine)), *routes(service, warmup, uploads)]
    page = build(service, notice)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        app_kwargs={"routes": [*more, *own], "middleware": [*middleware, Middleware(Guard, rules=rules or Rules())]},
        auth=accounts,
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


def launch(settings: Settings) -> None:
    """Serve until interrupted."""
    home, warning = choose_home()
    if warning:
        log.warning(warning)
    house, accounts = House.of(home, settings), accounts_of(settings.auth, settings.auth_file)
    with supervise(home, settings, house) as supervisor:
        commands = Commands(home)
        exports = Exports(home / "exports", ExportCommand(commands))
        exports.sweep()
        pushes = Pushes(home / "pushes", PushCommand(commands))
        pushes.sweep()
        engine, models = LocalEngine(), AnsweringProcess(home)
        made = house.services(supervisor, engine, shipped_example(), exports, pushes)
        made.uploads.sweep()
        tries = TryService(made.kept, models, engine, made.uploads)
        more = [*runs_routes(made.runs), *tryit_routes(tries)]
        metrics = Metrics(supervisor.figures)
        supervisor.on_stored(metrics.stored)
        seen = settings.metrics if settings.metrics is not None else not public_mode()
        more += health_routes(supervisor.health, metrics if seen else None)
        page, address = serve(
            made.targets,
            engine,
            None,
            made.uploads,
            settings.host,
            settings.port,
            more,
            warning if on_space() else "",
            [Middleware(Counting, metrics=metrics)],
            service=made.service,
            rules=house.rules,
            accounts=accounts,
        )
        log.warning("RankLab is on %s", address)
        _wait()
        ending = threading.Thread(target=supervisor.close, name="ending")
        threading.Thread(target=_leave, args=(ending,), name="leaving", daemon=True).start()
        ending.start()  # before all else: nothing new starts, and workers save while the page closes
        page.close()
        exports.close()
        pushes.close()
        commands.close()
        tries.close()
        models.close()
        ending.join()


def supervise(home: Path, settings: Settings, house: House) -> Supervisor:
    """The supervisor of a server. On a public page the stricter of both limits counts."""
    executor: str | BorrowedExecutor
    if settings.executor == "zerogpu" or (settings.executor == "auto" and on_zero_gpu()):
        executor = borrowed_executor(settings.gpu_seconds)
    else:
        executor = settings.executor if settings.executor in ("thread", "ray") else "process"
    return Supervisor(
        home,
        executor=executor,
        concurrency=settings.concurrency,
        max_queue=house.queue(settings.max_queue),
        server=True,
        limits=house.within(settings.limits()),
    )


def _leave(ending: threading.Thread) -> None:
    """End the process where a request still holds it: a thread that asks a slow Hub, say, cannot be stopped."""
    time.sleep(LEAVE_SECONDS)
    unfinished = ending.is_alive()
    log.warning("left with %s at work", "the store" if unfinished else "a request")
    logging.shutdown()
    os._exit(int(unfinished))


def _wait() -> None:
    """Until Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopped.set())
    try:
        while not stopped.wait(1.0):
            pass
    except KeyboardInterrupt:
        log.info("stopping")
