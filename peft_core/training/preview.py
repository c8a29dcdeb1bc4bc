"""A look at data before anything is trained: what is in it, and what a model's tokenizer makes of it. No weights."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from peft_core.backbones import load_processor, model_info
from peft_core.records import InputError, TrainingConfig, checked
from peft_core.tasks import ROLES, Rows, get_task
from peft_core.training.problems import problem_of
from peft_core.training.shape import shape_of

if TYPE_CHECKING:
    from peft_core.tasks._preview import Preview

SAMPLE = 1000
MAX_CHARACTERS, MAX_CELL = 2_000_000, 200_000
"""Of a sample, and of one cell in it: a table of novels is looked at in a second or two as well."""
UNCUT = 100_000
"""Tokens."""


@dataclass(frozen=True)
class TokenLengths:
    """Tokens a row, special ones included, over a sample of the training rows.

    sampled: rows in the sample. mean, p95, longest: of the whole rows (a decoder's rows hold source and target).
    limit: tokens a row may have; None for no limit. cut: rows of the sample that are longer; windows: such rows are
    read in several pieces, so nothing of them is lost. rows: training rows there are; cut_rows: about how many of
    them are cut.
    """

    sampled: int
    mean: float
    p95: int
    longest: int
    limit: int | None
    cut: int
    windows: bool
    rows: int
    cut_rows: int

    def __str__(self) -> str:
        what = f"{self.mean:.1f} tokens a row in the mean, 95 % at most {self.p95:,}, longest {self.longest:,}"
        if not self.cut:
            end = "no row is cut" if self.limit is None else f"none is longer than {self.limit:,}"
        elif self.windows:
            end = f"about {self.cut_rows:,} of {self.rows:,} are longer and are read in several windows"
        else:
            end = f"about {self.cut_rows:,} of {self.rows:,} are cut at {self.limit:,}"
        return f"{what} ({self.sampled:,} rows looked at); {end}."


def token_lengths(
    model: str, task: str, options: Mapping[str, Any] | None = None, max_length: int | None = None
) -> TokenLengths | None:
    """How long the training rows of a task are for a model; None where its rows are images.

    Args:
        max_length: as in TrainingConfig.

    Raises:
        InputError: no such model or task, a tokenizer that is not at hand, rows that the model cannot take.
    """
    chosen = dict(options or {})
    training = checked(TrainingConfig, {"max_length": max_length}, "training.")
    info, processor, model_is = get_task(task, chosen).info, load_processor(model), model_info(model)
    if info.modality not in (model_is.modality, "any"):
        raise InputError("model", model, f"it takes {model_is.modality} tasks, and this one is of {info.modality}s")
    if model_is.modality == "image":
        return None
    shape = copy.copy(shape_of(model, info.problem))
    shape.processor, shape.max_length = processor, _smaller(shape.max_length, processor.model_max_length)
    if max_length is not None and shape.max_length is not None and max_length > shape.max_length:
        raise InputError("training.max_length", max_length, f"{model} reads at most {shape.max_length} tokens")
    rows = _sample(get_task(task, chosen).rows("train", min(SAMPLE, info.max_train_rows), 0, chosen))
    problem = problem_of(info)
    read: Any = problem.encode(rows, info, shape, training)
    shape.max_length = None
    whole = problem.encode(rows, info, shape, TrainingConfig(max_length=UNCUT)).lengths()
    windows = hasattr(read, "row_of")
    if windows:
        cut = sum(count > 1 for count in Counter(read.row_of).values())
    else:
        cut = sum(short < full for short, full in zip(read.lengths(), whole, strict=True))
    limit = max_length or _smaller(model_is.max_length, processor.model_max_length)
    ordered, count = sorted(whole), len(whole)
    return TokenLengths(
        sampled=count,
        mean=sum(whole) / count,
        p95=ordered[min(count - 1, int(0.95 * count))],
        longest=ordered[-1],
        limit=max(read.lengths()) if cut else limit,
        cut=cut,
        windows=windows,
        rows=info.max_train_rows,
        cut_rows=round(cut / count * info.max_train_rows),
    )


def document(found: Preview) -> dict[str, Any]:
    """A preview as plain data for a page or a script."""
    values = asdict(found)
    info = values.pop("info")
    kept = ("title", "kind", "metrics", "outputs", "max_train_rows", "max_eval_rows", "origin", "license", "protocol")
    return {
        **values,
        "lengths": {name: {"mean": mean, "longest": longest} for name, (mean, longest) in found.lengths.items()},
        "kinds": {kind: list(roles) for kind, roles in ROLES.items()},
        "task": None if info is None else {name: info[name] for name in kept},
    }


def described(
    model: str | None, task: str, options: Mapping[str, Any] | None = None, max_length: int | None = None
) -> dict[str, Any]:
    """`document` of a task, with its `tokens`."""
    from peft_core.tasks import preview

    found = preview(task, options)
    return document(found) | {"tokens": tokens(found, model, task, options, max_length)}


def tokens(
    found: Preview, model: str | None, task: str, options: Mapping[str, Any] | None, max_length: int | None
) -> dict[str, Any] | None:
    """`token_lengths` as data, ``said`` in a sentence; or only the sentence why there are none.

    None without a model, for images, and for rows with problems.
    """
    if model is None or found.info is None:
        return None
    try:
        lengths = token_lengths(model, task, options, max_length)
    except InputError as error:
        return {"said": str(error)}
    return None if lengths is None else {**asdict(lengths), "said": str(lengths)}


def _smaller(positions: int | None, stated: int | None) -> int | None:
    """transformers writes a huge number for no limit."""
    limits = [limit for limit in (positions, stated) if limit is not None and limit < 1_000_000]
    return min(limits) if limits else None


def _sample(rows: Rows) -> Rows:
    """As many of the rows as hold `MAX_CHARACTERS`, at least one, with cells of at most `MAX_CELL`."""
    columns = {name: [_shortened(cell) for cell in cells] for name, cells in rows.columns.items() if name != "image"}
    total, count = 0, 0
    for cells in zip(*columns.values(), strict=True):
        total += sum(len(cell) for cell in cells if isinstance(cell, str))
        if count and total > MAX_CHARACTERS:
            break
        count += 1
    kept = {name: cells[:count] for name, cells in columns.items()}
    return Rows(kept, None if rows.labels is None else rows.labels[:count])


def _shortened(cell: Any) -> Any:
    return cell[:MAX_CELL] if isinstance(cell, str) else cell
