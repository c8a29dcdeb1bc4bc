"""Is what runs on a device right? Asked before anything is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from peft_core.methods._kernels import triton_installed
from scripts.benchmarking.runs import apart, in_lockstep, made_up_runs, random_roberta
from tests.methods import kernel_checks

MODEL = {"vocab_size": 1000, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
MODEL |= {"intermediate_size": 256}
METHODS = ("lora:rank=8", "capaboost_lora:rank=8", "capaboost_pfeiffer:bottleneck=16", "prefix:length=8", "bitfit")
ROWS, TOKENS, STEPS = 8, 24, 5
EXACT, ROUNDED = 1e-3, 5e-2
"""Largest deviation of a loss: of one float32 computation from another, and of bf16 from float32."""


@dataclass(frozen=True)
class Check:
    """What one check found. passed: None where it could not be run, for the reason in `detail`."""

    name: str
    passed: bool | None
    detail: str


def checks(device: str) -> list[dict[str, Any]]:
    """All of them, in order; a check that breaks has failed."""
    return [asdict(found) for make in (_kernels, _losses, _captured, _lockstep) for found in _guarded(make, device)]


def _guarded(make: Callable[[str], Iterator[Check]], device: str) -> list[Check]:
    found: list[Check] = []
    try:
        found.extend(make(device))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        found.append(Check(make.__name__.strip("_"), False, f"{type(error).__name__}: {error}"))
    return found


def _kernels(device: str) -> Iterator[Check]:
    if not triton_installed():
        yield Check("kernels against their twins", None, "Triton is not installed")
        return
    for dtype in kernel_checks.TOLERANCE:
        kernel_checks.products_agree(device, dtype)
        kernel_checks.drawn_factors_agree(device, dtype)
        kernel_checks.sums_agree(device, dtype)
        yield Check(f"kernels against their twins in {str(dtype).removeprefix('torch.')}", True, device)


def _losses(device: str) -> Iterator[Check]:
    """Losses of the first steps on the device against those on the CPU, in float32, and in bf16."""
    for method in METHODS:
        expected = _first_losses(method, "cpu", "fp32")
        for precision, limit in (("fp32", EXACT), ("bf16", ROUNDED)):
            found = _first_losses(method, device, precision)
            yield _compared(f"{method} on {device} in {precision} against the CPU in fp32", found, expected, limit)


def _captured(device: str) -> Iterator[Check]:
    """A run whose steps may be replayed against the same run without."""
    name = "captured steps against usual ones"
    losses = []
    for captured in (True, False):
        (run,) = made_up_runs(random_roberta(device, **MODEL), METHODS[1:2], ROWS, TOKENS)
        if captured and run.captured is None:
            yield Check(name, None, f"nothing is captured on {device}")
            return
        run.captured = run.captured if captured else None
        step = apart([run])
        losses.append([step()[0] for _ in range(40)])
        if captured:
            chosen = set(run.captured.chosen().values())
    found = _compared(name, *losses, EXACT)
    yield Check(name, found.passed, f"{found.detail}; {', '.join(sorted(chosen))}")


def _lockstep(device: str) -> Iterator[Check]:
    """Runs of several methods folded into one batch against the same ones apart."""
    name = f"lockstep against apart on {device}"
    folded, one = (made_up_runs(random_roberta(device, **MODEL), METHODS, ROWS, TOKENS) for _ in range(2))
    together, single = in_lockstep(folded), apart(one)
    if together is None:
        yield Check(name, None, "the engine does not fold runs yet")
        return
    found, expected = ([loss for _ in range(STEPS) for loss in step()] for step in (together, single))
    yield _compared(name, found, expected, EXACT)


def _first_losses(method: str, device: str, precision: str) -> list[float]:
    step = apart(made_up_runs(random_roberta(device, **MODEL), [method], ROWS, TOKENS, precision=precision))
    return [step()[0] for _ in range(STEPS)]


def _compared(name: str, found: list[float], expected: list[float], limit: float) -> Check:
    largest = float((torch.tensor(found) - torch.tensor(expected)).abs().max())
    return Check(name, largest <= limit, f"largest deviation of a loss {largest:.1e}, allowed {limit:.0e}")
