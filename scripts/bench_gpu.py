"""Everything that is measured on a CUDA device: first whether it is right, then how fast it is.

    scripts/bench_gpu.sh                  # under 8 minutes; writes assets/benchmarks/gpu.json
    scripts/bench_gpu.sh --dry-run        # all of it on the CPU at miniature shapes; no figure of it is kept

It needs torch with CUDA, triton, transformers, peft, numpy and pydantic, and nothing else of requirements.txt: no model
and no data is downloaded, weights and rows are random. A failed check ends it before anything is timed. Times are
medians over turns of several steps between two readings of the clock, the device's queue empty at both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""Dropout is off on both sides, as it is by default in the engine."""
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def full_size() -> Any:
    """RoBERTa-base and ViT-B/16, 32 rows of 128 tokens."""
    from scripts.benchmarking.gpu_speed import Size
    from scripts.benchmarking.runs import random_roberta, random_vit

    models: dict[str, Any] = {
        "roberta-base": partial(random_roberta, "cuda", **NO_DROPOUT),
        "vit-b16": partial(random_vit, "cuda", **NO_DROPOUT),
    }
    return Size(
        models, rows=32, tokens=128, rank=32, matrix=8192, width=768, turns=15, block=10, trainer=120, warmup=20
    )


def miniature() -> Any:
    """The same on the CPU, as small as it can be."""
    from scripts.benchmarking.gpu_speed import Size
    from scripts.benchmarking.runs import random_roberta, random_vit

    models: dict[str, Any] = {
        "roberta-base": partial(random_roberta, vocab_size=500, **SMALL, **NO_DROPOUT),
        "vit-b16": partial(random_vit, image_size=16, patch_size=8, **SMALL, **NO_DROPOUT),
    }
    return Size(models, rows=2, tokens=6, rank=2, matrix=64, width=32, turns=1, block=1, trainer=4, warmup=1, runs=2)


def measured(size: Any, device: str, done: Callable[[str], None]) -> tuple[dict[str, Any], list[str]]:
    """All figures, and a sentence for every part that broke; the other parts stand."""
    from peft_core.methods._kernels import fastest
    from scripts.benchmarking import gpu_speed

    found: dict[str, Any] = {"peak": gpu_speed.matrix_peak(size, device)}
    peak, broken = found["peak"]["tflops"], []
    parts: dict[str, Callable[[], Any]] = {
        **{f"steps {model}": partial(gpu_speed.steps, size, model, peak) for model in size.models},
        **{f"lockstep {model}": partial(gpu_speed.lockstep, size, model) for model in size.models},
        "kernels": partial(gpu_speed.kernels, size, device),
        "sparse tensor cores": partial(gpu_speed.sparse_tensor_cores, size, device),
    }
    for name, part in parts.items():
        try:
            found[name] = part()
        except (RuntimeError, ValueError, TypeError, ImportError, AssertionError) as error:
            broken.append(f"{name}: {type(error).__name__}: {error}")
        done(name)
    found["bars"] = bars(found)
    found["ways_chosen_by_the_engine"] = fastest.choices()
    return found, broken


def bars(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked for beside what was measured."""
    lines: list[dict[str, Any]] = []
    for name, part in found.items():
        if name.startswith("steps "):
            for way in ("bare", "engine"):
                ratio = next(line for line in part["lines"] if line["label"].endswith(f", {way}"))["step_vs_reference"]
                asked = f"{part['model']}: a step ({way}) by {part['reference']}'s, at most"
                lines.append({"asked": asked, "limit": 1.0, "measured": ratio, "met": ratio <= 1.0})
        folded = [line for line in part.get("lines", []) if line["label"] == "in lockstep"] if "lock" in name else []
        for line in folded:
            asked = f"{part['model']}: {part['runs']} runs in lockstep by PEFT and the Trainer, at least"
            lines.append({"asked": asked, "limit": 5.0, "measured": line["vs_trainer"], "met": line["vs_trainer"] >= 5})
    return lines


def without_figures(value: Any) -> Any:
    """The document of a dry run: every measured number, and what follows from it, is null."""
    if isinstance(value, dict):
        follows = ("met", "fastest")
        return {name: None if name in follows else without_figures(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [without_figures(entry) for entry in value]
    return None if isinstance(value, float) else value


def main() -> int:
    parser = argparse.ArgumentParser(description="Check and measure what runs on a CUDA device.")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU at miniature shapes, without figures")
    parser.add_argument("--out", type=Path, help="default: assets/benchmarks/gpu.json; a dry run: a temporary folder")
    options = parser.parse_args()
    if options.dry_run:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["TRITON_INTERPRET"] = "1"
    import torch

    from peft_core.training.checkpoint import write_atomically
    from peft_core.training.environment import environment
    from scripts.benchmarking.gpu_checks import checks

    if not options.dry_run and not torch.cuda.is_available():
        print("There is no CUDA device here; --dry-run tries the commands on the CPU.", file=sys.stderr)
        return 2
    device, size = ("cpu", miniature()) if options.dry_run else ("cuda", full_size())
    default = Path(tempfile.mkdtemp()) if options.dry_run else ROOT / "assets" / "benchmarks"
    out, started = options.out or default / "gpu.json", time.monotonic()

    def done(name: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {name}", file=sys.stderr)

    document: dict[str, Any] = {
        "what": "bf16 steps on a CUDA device; medians over turns, ratios are medians of pairs",
        "command": "scripts/bench_gpu.sh" + (" --dry-run" if options.dry_run else ""),
        "dry_run": options.dry_run,
        "date": datetime.now(UTC).date().isoformat(),
        "environment": environment(torch.device(device)),
        "checks": checks(device),
    }
    done("checks")
    wrong = [f"{check['name']}: {check['detail']}" for check in document["checks"] if check["passed"] is False]
    if not wrong:
        found, wrong = measured(size, device, done)
        document |= without_figures(found) if options.dry_run else found
    document |= {"failed": wrong, "seconds": round(time.monotonic() - started)}
    write_atomically(out, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    print(out)
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
