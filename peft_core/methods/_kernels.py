"""Products with tensors under d fixed masks, without a mask in memory, and IncreLoRA's score: kernel and plain twin.

An exact random mask keeps the positions whose key is at most the k-th smallest one (`_masks.exact_mask`), so it is told
by two numbers, the generator's base and that threshold. The kernels make the mask from them inside the product, forward
and backward; the twins do it with tensor operations. A kernel is used on CUDA alone, and only where measuring a shape
says that it pays.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from peft_core.methods._choice import Fastest
from peft_core.methods._kernels_pair import drawn_products
from peft_core.methods._masks import _SIGN, MaskedCopies, WeightTransform, hash_counters, kept_count
from peft_core.methods._product import FrozenMap

Side = Literal["right", "left"]
Products = Callable[[Tensor, Tensor, Tensor], Tensor]
Uses = Sequence[tuple[Tensor, Tensor]]
fastest = Fastest()
"""The choices of this process."""


@cache
def triton_installed() -> bool:
    """Whether Triton can be imported here."""
    return importlib.util.find_spec("triton") is not None


def branch_keys(shape: tuple[int, int], sparsity: float, bases: Sequence[int]) -> Tensor | None:
    """int64 (d, 2): base and threshold of the exact mask of each branch; None where a mask keeps nothing.

    The threshold is an unsigned number: a position is kept where its hash, read as unsigned, is at most it.
    """
    count = shape[0] * shape[1]
    keep = kept_count(count, sparsity)
    if keep == 0:
        return None
    counters = torch.arange(count)
    thresholds = [int((hash_counters(base, counters) ^ _SIGN).kthvalue(keep).values) for base in bases]
    return torch.tensor([[base, threshold ^ _SIGN] for base, threshold in zip(bases, thresholds, strict=True)])


def keys_of(transform: WeightTransform) -> Tensor | None:
    """`branch_keys` of a weight transform, on the CPU; None where keys do not tell its masks."""
    if not isinstance(transform, MaskedCopies) or not (bases := transform.bases()):
        return None
    return branch_keys(transform.shape, transform.config.sparsity, bases)


def masks_of_keys(keys: Tensor, shape: torch.Size) -> Tensor:
    """bool (d, rows, cols): the masks that the keys stand for."""
    counters = torch.arange(shape.numel(), device=keys.device)
    hashes = torch.stack([hash_counters(int(base), counters) for base in keys[:, 0]])
    return ((hashes ^ _SIGN) <= (keys[:, 1:] ^ _SIGN)).reshape(-1, *shape)


class _MaskedProduct(torch.autograd.Function):
    """x (tokens, inner) times the stacked masked copies of one tensor; saves x and the tensor, and no mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shared: Tensor, keys: Tensor, side: Side) -> Tensor:
        from peft_core.methods._kernels_triton import stacked_product

        ctx.save_for_backward(x, shared, keys)
        ctx.side = side
        return stacked_product(x, shared, keys, _strides(shared, side), lines_out=side == "right")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        from peft_core.methods._kernels_triton import shared_gradient, stacked_product

        x, shared, keys = ctx.saved_tensors
        right, gradient = ctx.side == "right", gradients[0].contiguous()
        strides = _strides(shared, ctx.side)
        below = of_shared = None
        if ctx.needs_input_grad[0]:
            below = stacked_product(gradient, shared, keys, strides, lines_out=not right)
        if ctx.needs_input_grad[1]:
            lines, others = (gradient, x) if right else (x, gradient)
            of_shared = shared_gradient(lines, others, keys, strides, shared.shape).to(shared.dtype)
        return below, of_shared, None, None


def _strides(shared: Tensor, side: Side) -> tuple[int, int, int]:
    """(rank, step between directions, step along the other axis) of A (r, in) or B (out, r)."""
    return (len(shared), shared.shape[1], 1) if side == "right" else (shared.shape[1], 1, shared.shape[1])


def masked_product(x: Tensor, shared: Tensor, keys: Tensor, side: Side) -> Tensor:
    """The kernel's product with all masked copies of one tensor.

    Args:
        x: (..., in) for `right`, (..., d r) for `left`.
        shared: A (r, in) for `right`, B (out, r) for `left`.
        keys: int64 (d, 2) of `branch_keys`, on x's device.

    Returns:
        (..., d r) for `right`, (..., out) for `left`, in x's dtype; products are summed in float32.
    """
    flat = x.reshape(-1, x.shape[-1]).contiguous()
    return _MaskedProduct.apply(flat, shared.contiguous(), keys, side).unflatten(0, x.shape[:-1])


def masked_product_twin(x: Tensor, shared: Tensor, keys: Tensor, side: Side) -> Tensor:
    """`masked_product` by plain tensor operations."""
    copies = shared * masks_of_keys(keys, shared.shape)
    stacked = copies.flatten(0, 1) if side == "right" else copies.transpose(0, 1).flatten(1, 2)
    return F.linear(x, stacked.to(x.dtype))


def masked_products(
    x: Tensor, a: Tensor, b: Tensor, keys_a: Tensor, keys_b: Tensor, gate: Tensor | None = None
) -> Tensor:
    """sum_i (B * m_Bi) diag(g) (A * m_Ai) x with the kernels, no mask in memory (CapaBoost, eq. 3, without its scale).

    Under autocast x is taken in its dtype; A and B stay in theirs and are rounded inside the product.

    Args:
        x: (..., in). a: (r, in). b: (out, r). gate: (r,) or None.
        keys_a, keys_b: int64 (d, 2) of `branch_keys`, on x's device.

    Returns:
        (..., out), in the dtype that x is taken in.
    """
    hidden = masked_product(_as_autocast(x), a, keys_a, "right")
    if gate is not None:
        hidden = hidden * gate.repeat(len(keys_a)).to(hidden.dtype)
    return masked_product(hidden, b, keys_b, "left")


def fastest_products(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    keys: tuple[Tensor, Tensor] | None,
    usual: Products,
    scale: float = 1.0,
    gate: Tensor | None = None,
    frozen: FrozenMap | None = None,
) -> Tensor:
    """What `usual(x, a, b)` computes, the pair's output scaled and the frozen map's added, in the fastest way.

    Ways: `inside`, masks drawn inside the products; `drawn`, masked factors written by one kernel each; `usual`. They
    are measured forward and backward, once for a shape and dtype. `usual` wherever no kernel can run or none should:
    without CUDA, without Triton, for masks that keys do not tell, without gradients, where products are counted, and
    while a graph is captured whose shape was not measured before.
    """
    if keys is None or not _may_choose(x) or not torch.is_grad_enabled():
        return usual(x, a, b)
    below = "with input gradient" if x.requires_grad else "without input gradient"
    tokens, shapes = _power(x.numel() // x.shape[-1]), f"{tuple(a.shape)} {tuple(b.shape)} {len(keys[0])}"
    key = f"products {tokens} {shapes} {_dtype(x)} {below}"
    if key not in fastest.choices() and _capturing():
        return usual(x, a, b)

    def inside(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        y = masked_products(x, a, b, *keys, gate)
        y = y if scale == 1 else y * scale
        return y if frozen is None else frozen(x) + y

    def drawn(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return drawn_products(x, a, b, keys, scale, frozen)

    ways: dict[str, Products] = {"inside": inside} | ({} if gate is not None else {"drawn": drawn}) | {"usual": usual}
    return ways[fastest.pick(key, {name: _passes(way, (x, a, b)) for name, way in ways.items()})](x, a, b)


def fastest_sum(left: Tensor, right: Tensor, uses: Uses, twin: Callable[[Tensor, Tensor, Uses], Tensor]) -> Tensor:
    """Sum of |(left right) * sum over uses of delta^T x|: the kernel's or the twin's, whichever is faster."""
    if not uses or not _may_choose(left):
        return twin(left, right, uses)
    tokens = sum(x.numel() // x.shape[-1] for x, _ in uses)
    key = f"sum {_power(tokens)} {tuple(left.shape)} {tuple(right.shape)} {_dtype(uses[0][0])}"
    ways = {"kernel": lambda: sensitivity_kernel(left, right, uses), "twin": lambda: twin(left, right, uses)}
    if key not in fastest.choices() and _capturing():
        return ways["twin"]()
    return ways[fastest.pick(key, ways)]()


def _may_choose(x: Tensor) -> bool:
    """Whether a kernel can run on this tensor; not where a mode looks on that would not see its products."""
    return x.is_cuda and triton_installed() and not is_in_torch_dispatch_mode(include_infra_modes=False)


def _capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def sensitivity_kernel(left: Tensor, right: Tensor, uses: Uses) -> Tensor:
    """The kernel of `_importance.absolute_product_sum`; nothing of the size of the update is made."""
    from peft_core.methods._kernels_triton import sensitivity_sum

    x = torch.cat([x.flatten(0, -2) for x, _ in uses]).contiguous()
    delta = torch.cat([delta.flatten(0, -2) for _, delta in uses]).contiguous()
    if x.dtype != delta.dtype:
        x, delta = x.float(), delta.float()
    return sensitivity_sum(left.float().contiguous(), right.float().contiguous(), delta, x)


def _passes(products: Products, given: tuple[Tensor, Tensor, Tensor]) -> Callable[[], object]:
    """Forward and backward on copies of what is given, so that no gradient of the run is touched."""

    def both() -> object:
        leaves = [value.detach().requires_grad_(value.requires_grad) for value in given]
        answer = products(*leaves)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        return torch.autograd.grad(answer, wanted, torch.ones_like(answer)) if wanted else answer

    return both


def _as_autocast(x: Tensor) -> Tensor:
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _dtype(x: Tensor) -> str:
    kind = x.device.type
    return str(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype)


def _power(count: int) -> int:
    """The next power of two, so that batches of nearly equal length share a measurement."""
    return 1 << max(0, count - 1).bit_length()
