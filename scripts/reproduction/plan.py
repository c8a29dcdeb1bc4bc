"""Which methods are trained on which tasks: the main comparison, and the papers' ablations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_core.records import MethodSpec

MODELS = {
    "acceptability": "tiny-text",
    "similarity": "tiny-text",
    "digits": "tiny-vision",
    "shape_orientation": "tiny-vision",
}
TASKS = tuple(MODELS)
ABLATION_TASKS = ("acceptability", "shape_orientation")

LORA = "lora:rank=4"
CAPABOOST = "capaboost_lora:rank=4,d=2,sparsity=0.5"
ADAPTER, CAPABOOST_ADAPTER = "adapter_pfeiffer:bottleneck=8", "capaboost_pfeiffer:bottleneck=8,d=2,sparsity=0.5"
ADALORA, INCRELORA = "adalora:target_rank=4,sites=qv", "increlora:target_rank=4,sites=qv"
RM_LORA, PROPETL = "rm_lora:rank=4", "propetl_lora:rank=4"


@dataclass(frozen=True)
class Variant:
    """One method of a group. learned_from: the method whose learned ranks, at the same seed, LoRA is trained with."""

    label: str
    method: str
    learned_from: str | None = None

    @property
    def key(self) -> str:
        """What names its cells: the same in every group."""
        return f"{self.method} with the ranks of {self.learned_from}" if self.learned_from else self.method


@dataclass(frozen=True)
class Group:
    """A table: methods that are compared with the first of them."""

    name: str
    title: str
    variants: tuple[Variant, ...]


def _plain(*methods: str) -> tuple[Variant, ...]:
    return tuple(Variant(method, method) for method in methods)


MAIN = Group(
    "main",
    "Methods at 2,048 weights a layer or fewer; head and full as bounds",
    _plain(
        LORA, CAPABOOST, ADALORA, INCRELORA, RM_LORA, PROPETL, ADAPTER, CAPABOOST_ADAPTER, "prefix:length=8", "bitfit",
        "head", "full",
    ),
)  # fmt: skip
CLAIM = ((CAPABOOST, LORA), (CAPABOOST_ADAPTER, ADAPTER))
"""CapaBoost, and what it goes over at the same inner dimension: a higher rank from three quarters of the weights."""


def _boosted(rank: int, d: int) -> str:
    return f"capaboost_lora:rank={rank},d={d},sparsity=0.5"


SWITCHES = (
    "advance_learning=false",
    "restart_warmup=false",
    "advance_learning=false,restart_warmup=false",
    "score=mean",
    "first_growth=2nu",
    "orthogonality=0",
)
"""What is switched in IncreLoRA."""

ABLATIONS = (
    Group(
        "density",
        "CapaBoost: density of the masks, d = 2",
        _plain(LORA)
        + tuple(
            Variant(f"density {10 - tenths}/10", f"capaboost_lora:rank=4,d=2,sparsity={tenths / 10:g}")
            for tenths in range(9, -1, -1)
        ),
    ),
    Group(
        "masks",
        "CapaBoost: kind of masks, d = 2",
        (
            Variant("random", CAPABOOST),
            *(Variant(kind, f"{CAPABOOST},masks={kind}") for kind in ("same", "dropout")),
            *(Variant(kind, f"capaboost_lora:rank=4,d=2,masks={kind}") for kind in ("2:4", "1:2", "1:4", "3:4")),
        ),
    ),
    Group(
        "size",
        "CapaBoost: d times r, density 0.5",
        _plain(LORA, "lora:rank=2", "lora:rank=8", "lora:rank=16")
        + tuple(Variant(f"r = {rank}, d = {d}", _boosted(rank, d)) for d in (2, 4) for rank in (2, 4, 8)),
    ),
    Group(
        "increlora",
        "IncreLoRA's switches",
        (
            Variant("as it is", INCRELORA),
            *(Variant(switches.replace(",", ", "), f"{INCRELORA},{switches}") for switches in SWITCHES),
        ),
    ),
    Group(
        "learned_ranks",
        "LoRA trained again with learned ranks, the same sum of ranks",
        (
            Variant("equal ranks", LORA),
            Variant("ranks that IncreLoRA learned", "lora", INCRELORA),
            Variant("ranks that AdaLoRA learned", "lora", ADALORA),
        ),
    ),
    Group("rm_lora", "RM-LoRA's four corners", _plain(LORA, "r_lora:rank=4", "gm_lora:rank=4", RM_LORA)),
    Group(
        "propetl",
        "ProPETL: only masks, only sharing, random masks",
        (
            Variant("shared prototype, learned masks", PROPETL),
            Variant("only masks", f"{PROPETL},share=false"),
            Variant("only sharing", f"{PROPETL},learn_masks=false"),
            Variant("random masks", f"{PROPETL},random_masks=true"),
        ),
    ),
)
GROUPS = (MAIN, *ABLATIONS)
STAND_INS = {"r_lora": "rm_lora", "gm_lora": "rm_lora"}
"""Methods that use another one's rate where the sweep did not try them."""


def needed(groups: Iterable[Group]) -> list[Variant]:
    """The variants of groups, each once, and those whose ranks others learn from before them."""
    wanted = [variant for group in groups for variant in group.variants]
    sources = [Variant(variant.learned_from, variant.learned_from) for variant in wanted if variant.learned_from]
    found = {variant.key: variant for variant in (*sources, *wanted)}
    return sorted(found.values(), key=lambda variant: variant.learned_from is not None)


class Rates:
    """The learning rates that a sweep chose.

    Args:
        path: the JSON of `python -m peft_core sweep`; of its `choices` the keys task, model, method and learning_rate.

    Raises:
        SystemExit: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise SystemExit(f"there is no {path}; make it with python -m peft_core sweep, or name another by --rates")
        self.path = path
        self._rows: Sequence[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["choices"]

    def of(self, task: str, method: str) -> float:
        """The rate chosen for a contender on a task: for exactly this method, else for its id, else a stand-in's.

        Raises:
            SystemExit: none was chosen, or several fit.
        """
        name = MethodSpec.parse(method).id
        for rows in (
            self._chosen(task, lambda row: row["method"] == method),
            self._chosen(task, lambda row: MethodSpec.parse(row["method"]).id == name),
            self._chosen(task, lambda row: MethodSpec.parse(row["method"]).id == STAND_INS.get(name)),
        ):
            if len(rows) == 1:
                return rows.pop()
            if len(rows) > 1:
                raise SystemExit(f"{self.path} has several learning rates for {method} on {task}; sweep it by itself")
        raise SystemExit(f"{self.path} has no learning rate for {method} on {task}; sweep it first")

    def _chosen(self, task: str, fits: Any) -> set[float]:
        rows = [row for row in self._rows if row["task"] == task and row["model"] == MODELS[task] and fits(row)]
        return {float(row["learning_rate"]) for row in rows if row["learning_rate"] is not None}
