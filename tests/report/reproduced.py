"""A reproduction as `scripts/reproduce.py` writes it, with figures made up for tests."""

from __future__ import annotations

from typing import Any

from scripts.reproduction.page import plan, summary
from scripts.reproduction.plan import ABLATIONS, CAPABOOST, LORA, MAIN

MACHINE = "Some <b>processor</b> & co"
COMMAND = "python scripts/reproduce.py --steps 240"


def cell(task: str, method: str, seed: int, score: float | None) -> dict[str, Any]:
    return {
        "task": task, "method": method, "seed": seed, "metric": "accuracy", "score": {"accuracy": score},
        "baseline_score": 0.5, "steps": 240, "learning_rate": 0.01, "trainable": 2048, "stored_bytes": 8192,
        "flops_vs_lora": 1.0, "seconds": 2.5, "environment": 0,
        "rank": {"numerical_mean": 8.0, "effective_mean": 5.25} if "lora" in method else None,
    }  # fmt: skip


SCORES: dict[str, tuple[list[float | None], list[float | None]]] = {
    "acceptability": ([0.70, 0.72, 0.74], [0.80, 0.83, 0.84]),
    "similarity": ([0.80, 0.82, 0.84], [0.70, 0.71, 0.74]),
    "digits": ([0.70, 0.72, 0.74], [0.74, 0.72, 0.70]),
    "shape_orientation": ([0.70, 0.72, None], [0.74, None, None]),
}
"""By task the scores of LoRA and of CapaBoost over it: above, below, across, and one pair of seeds."""


def reproduced() -> dict[str, Any]:
    """Every method of the main group on every task, three seeds, and one ablation."""
    cells = []
    for task, (plain, boosted) in SCORES.items():
        for variant in MAIN.variants:
            scores = boosted if variant.key == CAPABOOST else plain
            cells += [cell(task, variant.key, seed, score) for seed, score in enumerate(scores)]
    masks = [variant for group in ABLATIONS if group.name == "masks" for variant in group.variants]
    cells += [cell("digits", variant.key, 0, 0.75) for variant in masks if variant.key != CAPABOOST]
    return {
        "title": "The claim, measured",
        "what": "Score of the last step",
        "commands": [COMMAND],
        "rates": {"file": "assets/sweeps/learning_rates.json", "sha256": "0" * 64},
        "environments": [{"device_name": MACHINE, "threads": 1, "versions": {"torch": "2.9.9"}}],
        "plan": plan(),
        "cells": cells,
        "summary": summary(cells),
    }


PAIR = f"{CAPABOOST} minus {LORA}"
