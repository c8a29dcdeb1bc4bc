"""peft_core: parameter-efficient fine-tuning methods side by side, on equal terms.

>>> import peft_core
>>> model = peft_core.load("tiny-text", task="sentiment")
>>> tuned = peft_core.attach(model, "capaboost_lora:rank=4,d=2")
>>> records = peft_core.train(tuned, steps=4, train_rows=64, eval_rows=32)
>>> list(peft_core.evaluate(tuned))
['accuracy']
>>> peft_core.predict(tuned, ["a warm and funny film"])[0].answer in ("negative", "positive")
True

`load`, `attach`, `train`, `evaluate`, `predict`, `export` and `compare` are described in `peft_core.api`. What they are
made of is in the rooms: `records` (specifications and events), `methods`, `backbones`, `tasks`, `metrics`, `training`,
`runs`, `export`, `report`. Importing this package loads none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft_core.api import attach, compare, evaluate, export, load, predict, train

__version__ = "0.1.0"
__all__ = ["__version__", "attach", "compare", "evaluate", "export", "load", "predict", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("peft_core.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
