"""The modules that methods put beside a frozen layer: a low-rank pair and a bottleneck adapter."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_core.methods._fold_products import Pair
from peft_core.methods._kernels import fastest_products, keys_of
from peft_core.methods._masks import WeightTransform, fixed_masks, stream, uniform
from peft_core.methods._product import FrozenMap, Masks, Way, cheapest_way, low_rank_product, masked_linear

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "swish": F.silu,
    "tanh": torch.tanh,
}


def keyed_generator(*key: object) -> torch.Generator:
    """A CPU generator whose draws depend on the key alone."""
    return torch.Generator().manual_seed(stream("init", *key) & (2**63 - 1))


def kaiming(shape: tuple[int, int], bound: float, generator: torch.Generator) -> Tensor:
    """U(-bound, bound) of `shape`."""
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


class KeyedDropout(nn.Module):
    """Dropout whose mask depends on (seed, site, branch, step, row) alone, not on a global generator."""

    def __init__(self, probability: float, *key: object) -> None:
        super().__init__()
        self.probability, self._key = probability, key
        self.step = self.first_row = 0

    def forward(self, x: Tensor, branch: int = 0) -> Tensor:
        """x: (rows, ..., features)."""
        if not self.training or self.probability == 0:
            return x
        inner = x[0].numel()
        rows = torch.arange(self.first_row, self.first_row + x.shape[0], device=x.device)
        places = self._places(x.shape[1:], x.device)
        counters = rows.view(-1, *[1] * (x.dim() - 1)) * 2**40 + places
        keep = uniform(stream(*self._key, "dropout", branch, self.step), counters) >= self.probability
        return x * keep / (1 - self.probability) if inner else x

    @staticmethod
    def _places(shape: torch.Size, device: torch.device) -> Tensor:
        """Counters of the positions in a row that do not depend on how far the batch is padded."""
        features = torch.arange(shape[-1], device=device)
        if len(shape) == 1:
            return features
        return torch.arange(shape[0], device=device).unsqueeze(1) * 2**20 + features


class LowRank(nn.Module):
    """y += s * sum_i (B * m_Bi) diag(g) (A * m_Ai) x, with one A (r, in), one B (out, r), and g (r) where there is one.

    The d branches run as one pair of products over the concatenated factors, (d r, in) and (out, d r). Without a gate
    it is LoRA's pair (CapaBoost, eq. 3, where d > 1); with one it is the triple of AdaLoRA or the gated pair of SoRA.
    A direction whose gate is zero adds nothing, but its gate still has a gradient.

    way: how the products are executed; None, the default, for the cheapest (`_product.cheapest_way`).
    """

    takes_frozen = True

    def __init__(
        self,
        a: WeightTransform,
        b: WeightTransform,
        initial_a: Tensor,
        initial_b: Tensor,
        scale: float,
        dropout: KeyedDropout,
        initial_gate: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.A, self.B = nn.Parameter(initial_a), nn.Parameter(initial_b)
        self.gate = nn.Parameter(initial_gate) if initial_gate is not None else None
        self.mask_A, self.mask_B = a, b
        self.scale, self.dropout = scale, dropout
        self.way: Way | None = None
        self._keys: dict[torch.device, tuple[Tensor, Tensor] | None] = {}

    def right(self) -> Tensor:
        """(d r, in): the masked copies of A, one below the other, gated."""
        right = self.mask_A(self.A)
        return (right if self.gate is None else right * self.gate.unsqueeze(1)).flatten(0, 1)

    def left(self) -> Tensor:
        """(out, d r): the masked copies of B, one beside the other."""
        return self.mask_B(self.B).transpose(0, 1).flatten(1, 2)

    def factors(self) -> tuple[Tensor, Tensor]:
        """left (out, d r) and right (d r, in) with left @ right the weight update, scale and gate included."""
        return self.left() * self.scale, self.right()

    def pair(self) -> Pair | None:
        """What it computes, for a fold; None under dropout, which draws for every branch."""
        if self.dropout.probability:
            return None
        masks = _masks_of(self.mask_A, self.mask_B)
        if masks is None:
            return Pair(self.right(), self.left(), scale=self.scale)
        return Pair(self.A, self.B, scale=self.scale, masks=masks, gate=self.gate)

    def active_parameters(self) -> int:
        """Values of the directions that are alive and that some mask keeps, their gates included."""
        alive = self.alive()
        gates = 0 if alive is None else int(alive.sum())
        kept = ((self.kept_a(), self.A), (self.kept_b(), self.B))
        return gates + sum(
            int(mask.expand_as(tensor).sum()) if mask is not None else tensor.numel() for mask, tensor in kept
        )

    def alive(self) -> Tensor | None:
        """bool (r,): directions whose gate is not zero; None without a gate."""
        return None if self.gate is None else self.gate.detach() != 0

    def kept_a(self) -> Tensor | None:
        """bool (r, in): values of A that some mask and the gate keep; None for all."""
        return _both(self.mask_A.union(), self.alive(), 1)

    def kept_b(self) -> Tensor | None:
        """bool (out, r): values of B that some mask and the gate keep; None for all."""
        return _both(self.mask_B.union(), self.alive(), 0)

    def forward(self, x: Tensor, frozen: FrozenMap | None = None) -> Tensor:
        """x (..., in) to the update's output (..., out), with a frozen map to the output of both."""
        masks_a, masks_b = fixed_masks(self.mask_A), fixed_masks(self.mask_B)
        drops = self.training and self.dropout.probability
        if masks_a is not None and masks_b is not None and not drops:

            def usual(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
                return low_rank_product(x, a, b, self.gate, masks_a, masks_b, self.scale, frozen, self.way)

            if self.way is None and x.is_cuda:
                keys = self._keys_on(x.device)
                return fastest_products(x, self.A, self.B, keys, usual, self.scale, self.gate, frozen)
            return usual(x, self.A, self.B)
        y = self._dropped(x) if drops and self.mask_A.copies > 1 else self._product(self.dropout(x))
        y = y if self.scale == 1 else y * self.scale
        return y if frozen is None else frozen(x) + y

    def _keys_on(self, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """What tells the masks of both factors (`_kernels.keys_of`), made at first use; None where nothing does."""
        if device not in self._keys:
            a, b = keys_of(self.mask_A), keys_of(self.mask_B)
            self._keys[device] = None if a is None or b is None else (a.to(device), b.to(device))
        return self._keys[device]

    def way_at(self, tokens: int, needs_input: bool, merges: bool) -> Way | None:
        """How a training step executes the products over so many tokens; None where it has no choice."""
        masks = fixed_masks(self.mask_A)
        if masks is None or (self.training and self.dropout.probability):
            return None
        (rank, inputs), outputs = self.A.shape, len(self.B)
        return cheapest_way(tokens, inputs, outputs, rank, masks.branches, True, needs_input, merges)

    def _product(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.right()), self.left())

    def _dropped(self, x: Tensor) -> Tensor:
        """The same where every branch has a draw of its own."""
        right, left = self.right().unflatten(0, (-1, len(self.A))), self.mask_B(self.B)
        parts = [F.linear(F.linear(self.dropout(x, i), a), b) for i, (a, b) in enumerate(zip(right, left, strict=True))]
        return torch.stack(parts).sum(0)


def _both(union: Tensor | None, alive: Tensor | None, axis: int) -> Tensor | None:
    """What a union over masks (rows, cols) and a choice of directions along an axis both keep."""
    if alive is None:
        return union
    directions = alive.unsqueeze(axis)
    return directions & union if union is not None else directions


def _masks_of(one: WeightTransform, other: WeightTransform) -> tuple[Masks, Masks] | None:
    """Both transforms' masks, where masking is all that both do."""
    found = fixed_masks(one), fixed_masks(other)
    return None if found[0] is None or found[1] is None else (found[0], found[1])


class Bottleneck(nn.Module):
    """A(u) = sum_i U_i phi(V_i u + b_V) + b_U with V (bn, h), U (h, bn), U_i = U * m_Ui, V_i = V * m_Vi.

    The input bias is shared by the branches. The output bias is added `bias_copies` times: once as in CapaBoost's
    eq. 3, or d times as in its authors' code. Without inner residual.
    """

    def __init__(
        self,
        down: WeightTransform,
        up: WeightTransform,
        initial_down: Tensor,
        initial_up: Tensor,
        nonlinearity: str,
        bias_copies: int = 1,
    ) -> None:
        super().__init__()
        self.V, self.U = nn.Parameter(initial_down), nn.Parameter(initial_up)
        self.b_V, self.b_U = (
            nn.Parameter(torch.zeros(initial_down.shape[0])),
            nn.Parameter(torch.zeros(len(initial_up))),
        )
        self.mask_V, self.mask_U = down, up
        self.phi = NONLINEARITIES[nonlinearity]
        self.bias_copies = bias_copies

    def right(self) -> Tensor:
        """(d bn, h): the masked copies of V."""
        return self.mask_V(self.V).flatten(0, 1)

    def left(self) -> Tensor:
        """(h, d bn): the masked copies of U."""
        return self.mask_U(self.U).transpose(0, 1).flatten(1, 2)

    def factors(self) -> tuple[Tensor, Tensor]:
        """left (h, d bn) and right (d bn, h): the adapter's linear map, its nonlinearity left out."""
        return self.left(), self.right()

    def forward(self, u: Tensor) -> Tensor:
        """u (..., h) to (..., h)."""
        bias_in, bias_out = self.biases()
        down, up = fixed_masks(self.mask_V), fixed_masks(self.mask_U)
        if down is not None and up is not None and self._outweighs(u):
            inner = self.phi(masked_linear(u, self.V, bias_in, down, beside=False))
            return masked_linear(inner, self.U, bias_out, up, beside=True)
        return F.linear(self.phi(F.linear(u, self.right(), bias_in)), self.left(), bias_out)

    def _outweighs(self, u: Tensor) -> bool:
        """Whether masked copies of both weights, 2 d bn h values, are more than the input; they are then not kept.

        Making them again for the backward pass took 5 to 12 % of an adapter's time on one core of a CPU, so copies that
        weigh less stay with autograd.
        """
        return self.mask_V.copies > 1 and 2 * self.mask_V.copies * self.V.numel() > u.numel()

    def biases(self) -> tuple[Tensor, Tensor]:
        """(d bn,) before the nonlinearity and (h,) behind the second product."""
        bias_in = self.b_V if self.mask_V.copies == 1 else self.b_V.repeat(self.mask_V.copies)
        return bias_in, self.b_U if self.bias_copies == 1 else self.b_U * self.bias_copies

    def pair(self) -> Pair:
        """What it computes, for a fold."""
        masks = _masks_of(self.mask_V, self.mask_U)
        if masks is None:
            return Pair(self.right(), self.left(), *self.biases(), self.phi)
        return Pair(self.V, self.U, *self.biases(), self.phi, masks=masks)


def inverse_root(width: int) -> float:
    """1 / sqrt(width): the bound of Kaiming's uniform initialisation with a = sqrt(5)."""
    return 1 / math.sqrt(width)
