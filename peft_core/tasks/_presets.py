"""The papers' settings by benchmark and method, each value with the place it is printed at; nothing is filled in.

Values that only the authors' released code shows are marked so in `sources`. What no option of ours takes (label
smoothing, warm-up in steps) is in `beyond`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from peft_core.tasks._benchmark_table import BENCHMARKS

CODE = "released code"


@dataclass(frozen=True)
class Preset:
    """One method on one benchmark as a paper ran it.

    method: id; options: its options. training: fields of TrainingConfig. protocol: of the task. sources: where each
    value is printed, by its name. beyond: what the paper gives and no option takes.
    """

    paper: str
    task: str
    model: str
    method: str
    options: Mapping[str, Any]
    training: Mapping[str, Any]
    protocol: str
    sources: Mapping[str, str]
    beyond: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``paper/model/method``, with the options that tell two of one method apart."""
        tail = ",".join(
            f"{key}={self.options[key]}" for key in ("d", "rank", "bottleneck", "length") if key in self.options
        )
        return f"{self.paper}/{self.model}/{self.method}" + (f":{tail}" if tail else "")


_GLUE = ("mnli", "rte", "qnli", "mrpc", "qqp", "sst2", "cola", "stsb")
_RATES: dict[tuple[str, str], tuple[str, tuple[tuple[float, int], ...]]] = {
    ("roberta-base", "capaboost_lora"): (
        "Table 9",
        ((5e-4, 20), (6e-4, 40), (5e-4, 10), (5e-4, 40), (5e-4, 20), (1e-4, 20), (5e-4, 40), (5e-4, 20)),
    ),
    ("roberta-base", "capaboost_pfeiffer"): (
        "Table 10",
        ((1e-3, 10), (1e-3, 40), (2e-3, 10), (3e-4, 30), (1e-3, 10), (1e-3, 10), (5e-4, 20), (1e-3, 20)),
    ),
    ("deberta-v3-base", "capaboost_lora"): (
        "Table 12",
        ((5e-4, 20), (2e-3, 50), (1e-3, 15), (3e-3, 50), (5e-4, 20), (3e-4, 25), (5e-4, 15), (5e-4, 25)),
    ),
    ("deberta-v3-base", "capaboost_pfeiffer"): (
        "Table 13",
        ((5e-4, 20), (1.5e-3, 50), (5e-3, 20), (5e-3, 50), (1e-3, 30), (3e-4, 10), (3e-4, 10), (1e-3, 20)),
    ),
}
"""CapaBoost: learning rate and epochs, in the order of `_GLUE`."""
_SIZES: dict[tuple[str, str], tuple[dict[str, Any], str]] = {
    ("roberta-base", "capaboost_lora"): ({"rank": 32, "sites": "qv"}, "Table 8"),
    ("roberta-base", "capaboost_pfeiffer"): ({"bottleneck": 64}, "Table 8"),
    ("deberta-v3-base", "capaboost_lora"): ({"rank": 8, "sites": "six"}, "Table 11"),
    ("deberta-v3-base", "capaboost_pfeiffer"): ({"bottleneck": 32}, "Table 11"),
}
_INCRELORA = {
    "mnli": (3.5e-4, 9, 2, 1000, 0.2),
    "sst2": (8e-4, 24, 5, 1000, 0.1),
    "cola": (8e-4, 25, 3, 100, 0.0),
    "qqp": (4e-4, 7, 3, 1000, 0.0),
    "qnli": (7e-4, 5, 12, 500, 0.0),
    "rte": (1.2e-3, 50, 5, 100, 0.0),
    "mrpc": (1e-3, 30, 6, 100, 0.3),
    "stsb": (2.2e-3, 25, 4, 100, 0.0),
}
"""Learning rate, epochs, top h, warm-up steps, dropout."""
_RM_LORA_EPOCHS = {name: 5 if name in ("mrpc", "wnli") else 3 for name in (*_GLUE, "wnli")}
_SORA_PENALTY = {"cola": 1e-3, "sst2": 5e-3, "mrpc": 1e-3, "stsb": 1e-3, "qqp": 5e-3, "qnli": 1e-4, "mnli": 5e-3,
                 "wnli": 1e-2, "rte": 5e-3}  # fmt: skip
_PROPETL_LARGE = ("mnli", "qnli", "qqp", "sst2")


def _capaboost() -> Iterator[Preset]:
    for (model, method), (table, rows) in _RATES.items():
        size, where = _SIZES[model, method]
        for name, (rate, epochs) in zip(_GLUE, rows, strict=True):
            options: dict[str, Any] = {**size, "d": 2, "sparsity": 0.5}
            training: dict[str, Any] = {"learning_rate": rate, "batch_size": 128, "epochs": epochs}
            sources = dict.fromkeys((*training, "d", "sparsity"), table) | dict.fromkeys(size, where)
            if "rank" in size:
                code: dict[str, Any] = {"a_bound": "rank"} | ({"alpha": 48} if model == "roberta-base" else {})
                options |= code
                sources |= dict.fromkeys(code, CODE)
                sources["sites"] = CODE if model == "roberta-base" else "Table 11, by the parameter count"
            if model == "roberta-base":
                training |= {"weight_decay": 0.1, "warmup": 0.1, "max_length": 128}
                sources |= dict.fromkeys(("weight_decay", "warmup", "max_length"), CODE)
            protocol = "propetl" if model == "roberta-base" else "adalora"
            yield Preset("capaboost", f"glue/{name}", model, method, options, training, protocol, sources)
    for name in _GLUE:
        ranks = {"initial_rank": 48, "target_rank": 32, "sites": "qv"}
        sources = dict.fromkeys(ranks, "Appendix D.1.2")
        yield Preset("capaboost", f"glue/{name}", "roberta-base", "adalora", ranks, {}, "propetl", sources)
    for name in ("squad", "squad_v2"):
        for bottleneck in (64, 32, 16, 8):
            options = {"bottleneck": bottleneck, "d": 2, "sparsity": 0.5}
            training = {"learning_rate": 5e-4, "batch_size": 64, "epochs": 15}
            sources = {"bottleneck": "Table 14"} | dict.fromkeys((*training, "d", "sparsity"), "Table 15")
            yield Preset(
                "capaboost", name, "deberta-v3-base", "capaboost_pfeiffer", options, training, "default", sources
            )
    for name in (task for task in BENCHMARKS if task.startswith("vtab/")):
        for method, branches in (("lora", None), ("capaboost_lora", 2), ("capaboost_lora", 4)):
            every = {"rank": 8} | ({"d": branches} if branches else {})
            sources = dict.fromkeys((*every, "epochs"), "Table 5")
            yield Preset("capaboost", name, "vit-b16", method, every, {"epochs": 100}, "default", sources)


def _propetl() -> Iterator[Preset]:
    methods: tuple[tuple[str, dict[str, Any], float | None], ...] = (
        ("propetl_pfeiffer", {"bottleneck": 64}, 3e-3),
        ("propetl_lora", {"rank": 32, "alpha": 48}, 3e-2),
        ("propetl_prefix", {"length": 64}, 1e-4),
        ("adapter_pfeiffer", {"bottleneck": 64}, None),
        ("lora", {"rank": 32}, None),
        ("prefix", {"length": 64}, None),
    )
    for name in _GLUE:
        training = {
            "learning_rate": 1e-4,
            "batch_size": 128,
            "weight_decay": 0.1,
            "epochs": 10 if name in _PROPETL_LARGE else 20,
            "warmup": 0.1,
            "max_length": 128,
        }
        printed = dict.fromkeys(("learning_rate", "batch_size", "weight_decay", "epochs"), "Appendix C.2")
        for method, size, mask_rate in methods:
            options = dict(size)
            sources = printed | {"warmup": CODE, "max_length": CODE} | dict.fromkeys(size, "Section 4, Table 1")
            if mask_rate is not None:
                options |= {"mask_learning_rate": mask_rate, "keep": 0.5}
                sources |= {"mask_learning_rate": "Table 8", "keep": "Table 12"}
            yield Preset("propetl", f"glue/{name}", "roberta-base", method, options, training, "propetl", sources)
    for name, steps, rate in (("xsum", 100_000, 1e-4), ("wmt16/ro-en", 60_000, 3e-4)):
        training = {"learning_rate": rate, "batch_size": 64, "steps": steps, "weight_decay": 0.01}
        for method in ("propetl_pfeiffer", "adapter_pfeiffer", "full"):
            options = {} if method != "propetl_pfeiffer" else {"mask_learning_rate": 10 * rate}
            sources = dict.fromkeys((*training, *options, "label_smoothing"), "Table 10")
            beyond = {"label_smoothing": 0.1}
            yield Preset("propetl", name, "t5-base", method, options, training, "default", sources, beyond)


def _increlora() -> Iterator[Preset]:
    for name, (rate, epochs, top, warmup, dropout) in _INCRELORA.items():
        options = {"top_h": top, "interval": warmup, "dropout": dropout, "beta1": 0.85, "beta2": 0.85}
        training = {"learning_rate": rate, "batch_size": 32, "epochs": epochs}
        sources = dict.fromkeys((*options, *training, "warmup_steps"), "Appendix B")
        options["orthogonality"] = 0.3 if name in ("rte", "stsb") else 0.1
        sources["orthogonality"] = CODE
        yield Preset(
            "increlora", f"glue/{name}", "deberta-v3-base", "increlora", {"target_rank": 2, **options}, training,
            "adalora", sources | {"target_rank": "Table 1"}, {"warmup_steps": warmup},
        )  # fmt: skip


def _rm_lora() -> Iterator[Preset]:
    for name, epochs in _RM_LORA_EPOCHS.items():
        training = {"batch_size": 32, "epochs": epochs}
        printed = dict.fromkeys((*training, "learning_rate"), "Table 4")
        runs: list[tuple[str, dict[str, Any]]] = [("full", {})]
        runs += [(method, {"rank": rank}) for method in ("lora", "r_lora", "rm_lora") for rank in (4, 8)]
        for method, options in runs:
            rate = {"learning_rate": 1e-5 if method == "full" else 1e-3}
            sources = printed | dict.fromkeys(options, "Table 1")
            yield Preset(
                "rm_lora", f"glue/{name}", "deberta-v3-base", method, options, {**training, **rate}, "default", sources
            )
        penalty = {"gate_penalty": _SORA_PENALTY[name]}
        sources = dict.fromkeys((*training, "gate_penalty"), "Table 4")
        yield Preset("rm_lora", f"glue/{name}", "deberta-v3-base", "sora", penalty, training, "default", sources)


@cache
def _all() -> tuple[Preset, ...]:
    return (*_capaboost(), *_propetl(), *_increlora(), *_rm_lora())


def presets(task: str) -> list[Preset]:
    """What the papers print for a benchmark; empty for any other task."""
    return [preset for preset in _all() if preset.task == task]
