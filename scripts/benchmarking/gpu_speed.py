"""What a device does in which time: steps beside PEFT's, runs in lockstep, kernels beside their twins."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from peft_core.backbones._backbone import TransformerBackbone
from peft_core.methods._importance import tiled_sum
from peft_core.methods._kernels import (
    branch_keys,
    masked_product_twin,
    masked_products,
    masks_of_keys,
    sensitivity_kernel,
    triton_installed,
)
from peft_core.methods._kernels_pair import drawn_products
from peft_core.methods._masks import n_of_m_mask
from peft_core.training.optimizer import make_optimizer
from scripts.benchmarking.peers import DECAY, autocast, peft_step, trainer_steps_per_second
from scripts.benchmarking.runs import BATCHES, Step, apart, in_lockstep, made_up_rows, made_up_runs
from scripts.benchmarking.timing import interleaved, median_ratio


@dataclass(frozen=True)
class Size:
    """How large everything is.

    matrix: side of the square product whose speed is the peak. turns, block: times read, and steps between two
    readings. trainer: steps of the Trainer.
    """

    models: dict[str, Callable[[], TransformerBackbone]]
    rows: int
    tokens: int
    rank: int
    matrix: int
    width: int
    turns: int
    block: int
    trainer: int
    warmup: int
    runs: int = 8


def matrix_peak(size: Size, device: str) -> dict[str, Any]:
    """FLOPs a second of one large bf16 product."""
    a, b = (torch.randn(size.matrix, size.matrix, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = interleaved({"product": lambda: a @ b}, size.turns, size.block)["product"]
    return {"side": size.matrix, "tflops": 2e-12 * size.matrix**3 / statistics.median(times)}


def steps(size: Size, model: str, peak: float) -> dict[str, Any]:
    """A bf16 step of CapaBoost on LoRA beside PEFT's LoRA at the same rank and at the same rank of the update.

    `engine`: the engine's own step with clipping, records and, where it pays, a captured graph; `bare`: forward,
    backward and AdamW alone, as PEFT's is measured. fraction: of the measured peak, from the FLOPs counted.
    """
    make, rows = size.models[model], size.rows
    method = f"capaboost_lora:rank={size.rank},d=2,sparsity=0.5"
    (run,) = made_up_runs(make(), [method], rows, size.tokens, precision="bf16")
    plain, bare = (made_up_runs(make(), [method], rows, size.tokens, precision="bf16")[0] for _ in range(2))
    plain.captured = None
    encoded = made_up_rows(make(), rows, size.tokens)
    reference = f"PEFT LoRA rank={size.rank}"
    variants: dict[str, Step] = {
        reference: peft_step(make, size.rank, encoded, rows),
        f"PEFT LoRA rank={2 * size.rank}": peft_step(make, 2 * size.rank, encoded, rows),
        f"{method}, bare": _bare(bare.attached, encoded, rows),
        f"{method}, engine": apart([run]),
        f"{method}, engine without captured steps": apart([plain]),
    }
    times = interleaved(variants, size.turns, size.block, size.warmup)
    chosen = sorted(set(run.captured.chosen().values())) if run.captured else []
    flops = run.totals.flops / run.step
    lines = []
    for label, values in times.items():
        median = statistics.median(values)
        ours = label.startswith(method)
        lines.append(
            {
                "label": label,
                "step_ms_median": 1000 * median,
                "step_vs_reference": median_ratio(times, label, reference),
                "fraction_of_peak": flops / median / (peak * 1e12) if ours else None,
            }
        )
    shape = {"rows": rows, "tokens": size.tokens, "turns": size.turns, "steps_of_a_turn": size.block}
    return {"model": model, **shape, "reference": reference, "captured": chosen, "lines": lines}


def _bare(attached: Any, encoded: Any, rows: int) -> Step:
    """Forward, backward and the engine's optimizer alone."""
    device = attached.device
    batch, labels = encoded.batch(range(rows), device), encoded.labels_of(range(rows), device)
    optimizer = make_optimizer(attached.trainable(), DECAY)

    def step() -> None:
        with attached.active():
            with autocast(device.type):
                loss = F.cross_entropy(attached.logits(batch).float(), labels)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def lockstep(size: Size, model: str) -> dict[str, Any]:
    """Steps a second of several runs together, each run's step counted: folded, one after another, and by the Trainer.

    One after another the Trainer's runs take the time of one, as often as there are runs: its rate is that of one.
    """
    make = size.models[model]
    method = f"capaboost_lora:rank={size.rank},d=2,sparsity=0.5"
    made = partial(made_up_runs, methods=[method] * size.runs, rows=size.rows, tokens=size.tokens, precision="bf16")
    together = in_lockstep(made(make()))
    variants: dict[str, Step] = {"one after another": apart(made(make()))}
    if together is not None:
        variants["in lockstep"] = together
    times = interleaved(variants, size.turns, 1, size.warmup)
    rates = {label: size.runs / statistics.median(values) for label, values in times.items()}
    rows = made_up_rows(make(), BATCHES * size.rows, size.tokens)
    rates["PEFT and the Trainer, one after another"] = trainer_steps_per_second(
        make, size.rank, rows, size.rows, size.trainer, size.trainer // 4
    )
    slowest = rates["PEFT and the Trainer, one after another"]
    return {
        "model": model,
        "runs": size.runs,
        "lockstep": "measured" if together is not None else "the engine does not fold runs yet",
        "lines": [
            {"label": label, "run_steps_per_second": rate, "vs_trainer": rate / slowest}
            for label, rate in rates.items()
        ],
    }


def kernels(size: Size, device: str) -> list[dict[str, Any]]:
    """Forward and backward of each kernel beside its twin, in bf16, at the width of one map."""
    if not triton_installed():
        return [{"label": "kernels", "detail": "Triton is not installed"}]
    width, rank, tokens = size.width, size.rank, size.rows * size.tokens
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    a, b, x = drawn(rank, width), drawn(width, rank), drawn(tokens, width).bfloat16()
    keys_a = branch_keys((rank, width), 0.5, [1, 2])
    keys_b = branch_keys((width, rank), 0.5, [3, 4])
    assert keys_a is not None and keys_b is not None
    keys_a, keys_b, upstream = keys_a.to(device), keys_b.to(device), drawn(tokens, width).bfloat16()
    masks_a, masks_b = masks_of_keys(keys_a, a.shape), masks_of_keys(keys_b, b.shape)
    leaves = [value.requires_grad_() for value in (x, a, b)]

    def stored() -> Tensor:
        right, left = (a * masks_a).flatten(0, 1), (b * masks_b).transpose(0, 1).flatten(1, 2)
        return F.linear(F.linear(x, right.to(x.dtype)), left.to(x.dtype))

    def drawn_again() -> Tensor:
        return masked_product_twin(masked_product_twin(x, a, keys_a, "right"), b, keys_b, "left")

    products = {
        "masks inside the product": lambda: torch.autograd.grad(
            masked_products(x, a, b, keys_a, keys_b), leaves, upstream
        ),
        "factors drawn by a kernel": lambda: torch.autograd.grad(
            drawn_products(x, a, b, (keys_a, keys_b)), leaves, upstream
        ),
        "twin, masks kept": lambda: torch.autograd.grad(stored(), leaves, upstream),
        "twin, masks drawn again": lambda: torch.autograd.grad(drawn_again(), leaves, upstream),
    }
    uses = [(x.detach(), upstream)]
    sums = {
        "kernel": lambda: sensitivity_kernel(b.detach(), a.detach(), uses),
        "twin": lambda: tiled_sum(b.detach(), a.detach(), uses),
    }
    shape = f"{tokens} tokens, {width} x {width}, rank {rank}"
    return [
        _compared(f"products under 2 masks, {shape}", products, "twin, masks kept", size),
        _compared(f"tiled sum of a sensitivity, {shape}", sums, "twin", size),
    ]


def sparse_tensor_cores(size: Size, device: str) -> dict[str, Any]:
    """x A^T under 2:4 masks: dense, and on sparse tensor cores with A compressed again, as after every update."""
    lines, tokens = max(32, 2 * size.rank), size.rows * size.tokens
    shape = (lines, -(-size.width // 64) * 64)
    mask = n_of_m_mask(shape, 2, 4, base=1).to(device)
    a = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, torch.bfloat16)
    x = torch.randn(tokens, shape[1], generator=torch.Generator().manual_seed(1)).to(device, torch.bfloat16)
    label = f"2:4 masks, {tokens} tokens, {lines} x {shape[1]}"
    try:
        kept = torch.sparse.to_sparse_semi_structured(a * mask)
        assert torch.allclose(F.linear(x, kept), F.linear(x, a * mask), rtol=2e-2, atol=0.5)
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        return {
            "label": label,
            "detail": f"not on this device: {str(error).splitlines()[0] if str(error) else error!r}",
        }
    ways: dict[str, Step] = {
        "dense": lambda: F.linear(x, a * mask),
        "sparse, compressed before": lambda: F.linear(x, kept),
        "sparse, compressed each time": lambda: F.linear(x, torch.sparse.to_sparse_semi_structured(a * mask)),
    }
    return _compared(label, ways, "dense", size)


def _compared(label: str, ways: dict[str, Step], plain: str, size: Size) -> dict[str, Any]:
    times = interleaved(ways, size.turns, size.block)
    lines = [
        {
            "label": way,
            "ms_median": 1000 * statistics.median(values),
            "vs_plain": median_ratio(times, way, plain),
        }
        for way, values in times.items()
    ]
    fastest = min(lines, key=lambda line: line["ms_median"])
    return {"label": label, "lines": lines, "fastest": fastest["label"]}
