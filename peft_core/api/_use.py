"""`predict` and `export`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from peft_core.api._loading import load
from peft_core.api._model import Tuned
from peft_core.api._stored import finished_run
from peft_core.export.folders import check_target, new_folder, write_json
from peft_core.export.native import save_native
from peft_core.export.peft_format import OWN
from peft_core.export.predicting import Predictor
from peft_core.export.recipe import Trained, task_number
from peft_core.export.writing import check_format, export_run, save_format
from peft_core.records import InputError, RunSpec, TrainingConfig
from peft_core.training.native import save_adapter
from peft_core.training.problems import Prediction

One = str | Path | bytes | np.ndarray | Sequence[str] | Mapping[str, Any]
"""A text, a pair or (question, context), the path, bytes or uint8 (h, w, 3) of an image, or these by role."""


def predict(tuned: Tuned | str | Path, inputs: Sequence[One] | Path, *, task: str | None = None) -> list[Prediction]:
    """Answers, in the order of the inputs; inputs are cut and scaled as training rows were.

    Args:
        tuned: from `attach` or `load`; or the id of a finished run, or a native folder, which is loaded for this call.
        inputs: texts, pairs ``(text, text2)``, ``(question, context)``, images (a path, bytes, or uint8 (height, width,
            3)), or mappings such as ``{"text": ..., "text2": ...}``; or the path of a table, answered row by row.
        task: whose head answers, where several tasks were trained together.

    Returns:
        Predictions: `answer` is a label, a number, a part of the context, or text; `confidence` by label for classes.

    Raises:
        InputError: an input that the model does not take.

    >>> import peft_core
    >>> tuned = peft_core.attach(peft_core.load("tiny-text", task="sentiment"), "lora:rank=4")
    >>> found = peft_core.predict(tuned, ["a fine film", "a dull film"])
    >>> [sorted(one.confidence) for one in found]
    [['negative', 'positive'], ['negative', 'positive']]
    """
    tuned = tuned if isinstance(tuned, Tuned) else load(tuned)
    tuned.model.check_unmerged()
    trained = _of_task(tuned.trained, task)
    predictor = Predictor(trained)
    if isinstance(inputs, Path):
        return [prediction for _, prediction in predictor.table(inputs)]
    if isinstance(inputs, str | bytes):
        raise InputError("inputs", inputs, "it must be a list of inputs, or the Path of a table")
    return predictor.answers([_by_role(one, predictor.roles) for one in inputs])


def _of_task(trained: Trained, task: str | None) -> Trained:
    return replace(trained, task=task_number(trained.recipe, task))


def _by_role(one: One, roles: tuple[str, ...]) -> Mapping[str, Any]:
    if isinstance(one, Mapping):
        return one
    if isinstance(one, str | Path | bytes | np.ndarray):
        return {roles[0]: one}
    if not isinstance(one, Sequence):
        raise InputError("inputs", type(one).__name__, f"an input is {' and '.join(roles)}, or a mapping of these")
    if len(roles) == 1 and len(one) == 2 and roles[0] == "text":
        roles = ("text", "text2")
    if len(one) != len(roles):
        raise InputError("inputs", len(one), f"an input has {len(roles)} parts: {' and '.join(roles)}")
    return dict(zip(roles, one, strict=True))


def export(
    tuned: Tuned | str,
    folder: str | Path,
    format: Literal["native", "peft", "merged"] = "native",
    *,
    task: str | None = None,
) -> Path:
    """Writes what was trained, head included, to a new folder, all of it or nothing.

    Args:
        tuned: from `attach` or `load`, or the id of a finished run, which also gets a model card and its curve.
        folder: empty, or not there yet.
        format: native: the smallest, for `load`. peft: what `PeftModel.from_pretrained` of Hugging Face loads. merged:
            a plain transformers folder with the update in its weights.
        task: whose head goes along, where several tasks were trained together; a native folder has all of them.

    Returns:
        The folder.

    Raises:
        InputError: the folder is taken, or the method has no such format; the sentence says which it has.

    >>> import peft_core, tempfile, pathlib
    >>> tuned = peft_core.attach(peft_core.load("tiny-text", task="sentiment"), "lora:rank=4")
    >>> place = peft_core.export(tuned, pathlib.Path(tempfile.mkdtemp()) / "mine")
    >>> sorted(path.name for path in place.iterdir())
    ['adapter.json', 'adapter.safetensors', 'head.safetensors']
    >>> peft_core.load(place).trainable == tuned.trainable
    True
    """
    to = Path(folder).expanduser().resolve()
    if format not in ("native", "peft", "merged"):
        raise InputError("format", format, "it must be one of native, peft, merged")
    if isinstance(tuned, str):
        export_run(finished_run(tuned), format, to, task)
        return to
    tuned.model.check_unmerged()
    check_target(to)
    recipe = tuned.trained.recipe
    if format != "native":
        trained = _of_task(tuned.trained, task)
        check_format(trained, format)
    with new_folder(to) as place:
        if format == "native":
            with tempfile.TemporaryDirectory() as values:
                save_adapter(Path(values), _run(tuned), tuned.trained.config, tuned.attached)
                save_native(recipe, Path(values), place)
        else:
            before, tuned.attached.task = tuned.attached.task, trained.task
            try:
                save_format(trained, format, place)
            finally:
                tuned.attached.task = before
            write_json(place / OWN, recipe.public().model_dump(mode="json"))
    return to


def _run(tuned: Tuned) -> RunSpec:
    label = str(tuned.method)
    spec = tuned.spec(TrainingConfig())
    return RunSpec(run=label, comparison=spec, method=tuned.method, label=label, seed=tuned.seed)
