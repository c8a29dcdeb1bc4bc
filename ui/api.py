"""Three functions for programs, over `gradio_client` or, where Gradio's MCP server is on, as tools.

They take and refuse what the page takes and refuses, in the same sentences, and a public page's rules hold for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from peft_core.records import InputError, MethodSpec, public_mode
from peft_core.report import results_document
from peft_core.report.tables import strict
from peft_core.runs import example_spec
from peft_core.runs.errors import Refused
from ui.form import Form, FormError, MethodRow, texts
from ui.guard import visitor_of
from ui.routes import LARGEST_BODY, readable
from ui.scrub import all_scrubbed
from ui.service import Service, progress
from ui.visitors import NOBODY, visiting

DEFAULT_METHODS = [str(method) for method in example_spec().methods]


def api(service: Service) -> None:
    """Adds the functions to the Blocks that is being built; nothing else of it can be called from outside."""

    def start(
        methods: list[str] = DEFAULT_METHODS,
        model: str = "tiny-text",
        task: str = "acceptability",
        seeds: list[int] = [0, 1],  # noqa: B006
        training: dict[str, Any] = {},  # noqa: B006
        task_options: dict[str, Any] = {},  # noqa: B006
        comparison: dict[str, Any] = {},  # noqa: B006
        lock: str = "",
        lock_to: str = "",
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> dict[str, Any]:
        """Start a comparison of fine-tuning methods: every method with every seed on one model and task.

        Args:
            methods: each written id or id:key=value,key=value, as on the command line.
            model: an embedded model, a folder or a Hugging Face Hub id.
            task: a task, or several trained together, a+b+c.
            seeds: different whole numbers.
            training: fields of the training config: steps or epochs, batch_size, learning_rate and others.
            task_options: options of the task.
            comparison: data_seed, train_rows, eval_rows, plan.
            lock: parameters, rank or flops make the methods equal in it; empty leaves them as they are.
            lock_to: the method that a lock leaves as it is; empty: the first.

        Returns:
            id: what status and results take.
        """
        given = dict(
            methods=methods, model=model, task=task, seeds=seeds, training=training, task_options=task_options,
            comparison=comparison, lock=lock, lock_to=lock_to,
        )  # fmt: skip
        return _told(request, lambda: {"id": service.start(form_of(given))})

    def status(id: str, request: gr.Request = None) -> dict[str, Any]:  # type: ignore[assignment]
        """How far a comparison is.

        Args:
            id: what start returned.

        Returns:
            state, ended, queue_place, progress from 0 to 1, eta_seconds, message, and the state of every run.
        """
        return _told(request, lambda: strict(progress(service.comparison(_text("id", id), after=2**62))))

    def results(
        id: str,
        reference: str = "",
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> dict[str, Any]:
        """What a comparison measured so far, as results.json has it: runs, summary, environment.

        Args:
            id: what start returned.
            reference: the method that differences are to; empty: the first.

        Returns:
            the document.
        """
        chosen = _text("reference", reference) or None
        return _told(request, lambda: strict(results_document(service.comparison(_text("id", id)), chosen)))

    for function in (start, status, results):
        gr.api(function, api_name=function.__name__, concurrency_id="api", concurrency_limit=4)


def form_of(given: dict[str, Any]) -> Form:
    """What a program sent as the form of the page.

    Raises:
        InputError: a part of another kind, or more than the page would take.
    """
    try:
        size = len(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError):
        raise InputError("start", "the input", "it must be strict JSON") from None
    if size > LARGEST_BODY:
        raise InputError("start", f"{size} bytes", f"at most {LARGEST_BODY} bytes are taken")
    methods = [MethodSpec.parse(_text("methods", text)) for text in _list("methods", given["methods"])]
    seeds = [_whole("seeds", seed) for seed in _list("seeds", given["seeds"])]
    reference = _text("lock_to", given["lock_to"]).strip()
    places = {str(method): str(place) for place, method in enumerate(methods)}
    if reference and str(MethodSpec.parse(reference)) not in places:
        raise InputError("lock_to", reference, "it must be one of the methods")
    more = _options("comparison", given["comparison"])
    if unknown := sorted(set(more) - {"data_seed", "train_rows", "eval_rows", "plan"}):
        raise InputError(f"comparison.{unknown[0]}", more[unknown[0]], "there is no such field")
    return Form(
        model=_text("model", given["model"]),
        task=_text("task", given["task"]),
        methods=[MethodRow(id=method.id, options=texts(method.options)) for method in methods],
        seeds=", ".join(map(str, seeds)),
        training=_options("training", given["training"]),
        task_options=_options("task_options", given["task_options"]),
        lock=_text("lock", given["lock"])[:100],
        lock_to=places[str(MethodSpec.parse(reference))] if reference else "",
        **more,
    )


def _told(request: gr.Request | None, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The work's result for the sender of a request, or its complaint as one sentence."""
    try:
        with visiting(visitor_of(request.request.scope) if request is not None and request.request else NOBODY):
            found = work()
    except FormError as error:
        raise gr.Error(readable(error.errors[0].message), print_exception=False) from None
    except (InputError, Refused) as error:
        raise gr.Error(readable(str(error)), print_exception=False) from None
    return all_scrubbed(found) if public_mode() else found  # type: ignore[no-any-return]


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > 2000:
        raise InputError(name, value, "it must be a short text")
    return value


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(name, value, "it must be a list of whole numbers")
    return value


def _list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list) or not 1 <= len(value) <= 100:
        raise InputError(name, value, "it must be a list of 1 to 100 entries")
    return value


def _options(name: str, value: object) -> dict[str, Any]:
    plain = (bool, int, float, str, type(None))
    if not isinstance(value, dict) or not all(isinstance(entry, plain) for entry in value.values()):
        raise InputError(name, value, "it must be an object of texts and numbers")
    return texts(value)
