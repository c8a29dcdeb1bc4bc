"""Kernels against their plain twins, on one device: `python -m tests.methods.kernel_checks cpu|cuda`.

On the CPU it needs TRITON_INTERPRET=1: Triton then interprets the kernels.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from peft_core.methods._importance import tiled_sum
from peft_core.methods._kernels import (
    branch_keys,
    masked_product_twin,
    masked_products,
    sensitivity_kernel,
)
from peft_core.methods._kernels_pair import drawn_products
from peft_core.methods._product import FrozenMap

CASES = ((4, 40, 24, 2, (2, 35), 0.5), (20, 70, 33, 3, (301,), 0.8), (8, 16, 16, 1, (1,), 0.0))
"""(rank, in, out, d, shape of the tokens, sparsity): tails in every direction, several blocks and token splits."""
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2.5e-2}
"""Largest deviation by the largest value: the order of float32 sums; bf16's 8 bits through two products."""


def products_agree(device: str, dtype: torch.dtype) -> None:
    """Values and all gradients of the products under masks."""
    for rank, inner, outs, d, tokens, sparsity in CASES:
        generator = torch.Generator().manual_seed(rank)

        def drawn(*shape: int, of: torch.Generator = generator) -> Tensor:
            return torch.randn(shape, generator=of).to(device)

        bases = [7919 * branch - 3 for branch in range(2 * d)]
        keys_a = branch_keys((rank, inner), sparsity, bases[:d]).to(device)
        keys_b = branch_keys((outs, rank), sparsity, bases[d:]).to(device)
        x, a, b = drawn(*tokens, inner).to(dtype), drawn(rank, inner), drawn(outs, rank)
        gate, upstream = drawn(rank), drawn(*tokens, outs).to(dtype)
        leaves = [value.requires_grad_() for value in (x, a, b, gate)]
        ours = masked_products(x, a, b, keys_a, keys_b, gate)
        hidden = masked_product_twin(x, a, keys_a, "right") * gate.repeat(d).to(dtype)
        twin = masked_product_twin(hidden, b, keys_b, "left")
        found = (ours, *torch.autograd.grad(ours, leaves, upstream))
        expected = (twin, *torch.autograd.grad(twin, leaves, upstream))
        for one, two in zip(found, expected, strict=True):
            assert one.dtype == two.dtype and one.shape == two.shape
            deviation = float((one - two).detach().abs().max() / two.detach().abs().max())
            assert deviation <= TOLERANCE[dtype], (rank, d, tuple(one.shape), deviation)


def drawn_factors_agree(device: str, dtype: torch.dtype) -> None:
    """Values and gradients where kernels write the masked factors, with a frozen map and without."""
    for rank, inner, outs, d, tokens, sparsity in CASES:
        generator = torch.Generator().manual_seed(rank)

        def drawn(*shape: int, of: torch.Generator = generator) -> Tensor:
            return torch.randn(shape, generator=of).to(device)

        keys = (branch_keys((rank, inner), sparsity, range(d)), branch_keys((outs, rank), sparsity, range(d, 2 * d)))
        keys = tuple(key.to(device) for key in keys)
        x, a, b = drawn(*tokens, inner).to(dtype), drawn(rank, inner), drawn(outs, rank)
        weight, bias, upstream = (drawn(*shape).to(dtype) for shape in ((outs, inner), (outs,), (*tokens, outs)))
        leaves = [value.requires_grad_() for value in (x, a, b)]
        for frozen in (None, FrozenMap(weight, bias)):
            ours = drawn_products(x, a, b, keys, 1.5, frozen)
            twin = masked_product_twin(masked_product_twin(x, a, keys[0], "right"), b * 1.5, keys[1], "left")
            twin = twin if frozen is None else frozen(x) + twin
            found = (ours, *torch.autograd.grad(ours, leaves, upstream))
            expected = (twin, *torch.autograd.grad(twin, leaves, upstream))
            for one, two in zip(found, expected, strict=True):
                assert one.dtype == two.dtype and one.shape == two.shape
                deviation = float((one - two).detach().abs().max() / two.detach().abs().max())
                assert deviation <= TOLERANCE[dtype], (rank, d, tuple(one.shape), deviation)


def gradient_of_the_weight_alone(device: str) -> None:
    """Below the first adapted site the input has no gradient."""
    keys = branch_keys((4, 40), 0.5, [1, 2]).to(device)
    x, a = torch.randn(5, 40, device=device), torch.randn(4, 40, device=device, requires_grad=True)
    b, keys_b = torch.randn(24, 4, device=device), branch_keys((24, 4), 0.5, [3, 4]).to(device)
    for products in (masked_products(x, a, b, keys, keys_b), drawn_products(x, a, b, (keys, keys_b))):
        a.grad = None
        products.sum().backward()
        assert a.grad is not None and x.grad is None


def sums_agree(device: str, dtype: torch.dtype) -> None:
    """The tiled sum of a sensitivity, over one and over two uses of a map."""
    generator = torch.Generator().manual_seed(0)
    for rank, inner, outs, tokens in ((5, 70, 33, 90), (1, 16, 100, 3)):
        left = torch.randn(outs, rank, generator=generator).to(device)
        right = torch.randn(rank, inner, generator=generator).to(device)
        uses = [
            (
                torch.randn(2, tokens, inner, generator=generator).to(device, dtype),
                torch.randn(2, tokens, outs, generator=generator).to(device, dtype),
            )
            for _ in range(2)
        ]
        for some in (uses[:1], uses):
            found, expected = float(sensitivity_kernel(left, right, some)), float(tiled_sum(left, right, some))
            assert abs(found - expected) <= 2e-6 * expected, (rank, found, expected)


def main(device: str) -> None:
    for dtype in TOLERANCE:
        products_agree(device, dtype)
        drawn_factors_agree(device, dtype)
        sums_agree(device, dtype)
    gradient_of_the_weight_alone(device)
    print(f"kernels agree with their twins on {device}")


if __name__ == "__main__":
    main(sys.argv[1])
