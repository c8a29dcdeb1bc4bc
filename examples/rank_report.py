"""What is in a LoRA adapter: rank, norm and spectrum of every map, and how small it could be.

    python examples/rank_report.py [FOLDER]

FOLDER holds an adapter of Hugging Face PEFT made anywhere (its base model is not needed), or a native one. Without one,
an adapter is trained for a moment and written as PEFT writes it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import peft_core
from peft_core.export.compress import compress_folder
from peft_core.export.rank_report import inspect_folder


def example_adapter(folder: Path) -> Path:
    tuned = peft_core.attach(peft_core.load("tiny-text", task="acceptability"), "capaboost_lora:rank=8,d=2,sites=six")
    peft_core.train(tuned, steps=30, train_rows=480, eval_rows=64)
    return peft_core.export(tuned, folder, format="peft")


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments[0]) if arguments else example_adapter(Path(scratch) / "adapter")
        report = inspect_folder(folder, 0.99).described()
        for layer in report["layers"]:
            print(
                f"{layer['site']:<44} rank {layer['numerical']:>3}, effective {layer['effective']:6.2f}, "
                f"99 % of the energy in {layer['rank_at_energy']:>3}, norm {layer['norm']:.3f}"
            )
        total = report["total"]
        print(f"{total['parameters']:,} parameters; {total['parameters_at_energy']:,} hold 99 % of the energy")
        smaller = Path(scratch) / "smaller"
        compress_folder(folder, 0.99, smaller)
        print(f"the smaller adapter takes {sum(file.stat().st_size for file in smaller.iterdir()):,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
