"""CapaBoost's fixed random masks, from a counter-based generator (CapaBoost, eq. 3; METHODS.md, section 2).

A mask depends on (mask seed, site, role of the tensor, branch) alone: not on the order of construction, not on the
device, not on any global generator. Only the seed is stored.
"""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from peft_core.methods._bits import pack_rows, unpack_rows
from peft_core.methods._product import Masks
from peft_core.records import Frozen, InputError, Seed

GENERATOR_VERSION = 1
_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_SIGN = -(2**63)
_N_OF_M = re.compile(r"^([1-9]\d{0,2}):([1-9]\d{0,2})$")


def stream(*key: object) -> int:
    """A signed 64-bit number that stands for the key; distinct keys give unrelated numbers."""
    text = "\x1f".join(str(part) for part in (GENERATOR_VERSION, *key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def hash_counters(base: int, counters: Tensor) -> Tensor:
    """SplitMix64 of ``base + counter`` for int64 counters of any shape; int64 of the same shape.

    A bijection for a fixed base: distinct counters never collide (Steele, Lea and Flood 2014).
    """
    x = (counters + 1) * _GOLDEN + base
    x = (x ^ ((x >> 30) & (2**34 - 1))) * _MIX_1
    x = (x ^ ((x >> 27) & (2**37 - 1))) * _MIX_2
    return x ^ ((x >> 31) & (2**33 - 1))


def uniform(base: int, counters: Tensor) -> Tensor:
    """float32 numbers in [0, 1) for int64 counters: the top 24 bits of their hash."""
    return ((hash_counters(base, counters) >> 40) & (2**24 - 1)).to(torch.float32) * 2.0**-24


def kept_count(count: int, sparsity: float) -> int:
    """floor(n (1 - s)), exactly in decimal: 100 positions at s=0.9 keep 10, not 9."""
    return int(count * (1 - Decimal(str(sparsity))))


def exact_mask(shape: tuple[int, int], sparsity: float, base: int) -> Tensor:
    """bool mask of `shape` that keeps the `kept_count` positions with the smallest keys.

    Keys are compared as unsigned numbers; they are distinct, so the k-th one is a threshold.
    """
    count = shape[0] * shape[1]
    keep = kept_count(count, sparsity)
    if keep == 0:
        return torch.zeros(shape, dtype=torch.bool)
    keys = hash_counters(base, torch.arange(count)) ^ _SIGN
    return (keys <= keys.kthvalue(keep).values).reshape(shape)


def n_of_m_mask(shape: tuple[int, int], n: int, m: int, base: int) -> Tensor:
    """bool mask that keeps n of every m consecutive positions along the last axis, the contraction axis."""
    keys = hash_counters(base, torch.arange(shape[0] * shape[1])) ^ _SIGN
    order = keys.reshape(-1, m).argsort(dim=1)
    mask = torch.zeros(order.shape, dtype=torch.bool)
    return mask.scatter_(1, order[:, :n], True).reshape(shape)


class BoostConfig(Frozen):
    """The options that CapaBoost adds to a method."""

    d: int = Field(2, ge=1, le=64, description="parallel modules that share one weight, each under its own mask")
    sparsity: float = Field(0.5, ge=0, lt=1, description="share of zeros in a mask; with N:M masks N/M decides")
    masks: str = Field("random", description="random | N:M such as 2:4 | same | dropout")
    mask_seed: Seed | None = Field(None, description="draws the masks; empty: the run's seed")

    @field_validator("masks")
    @classmethod
    def _known_masks(cls, value: str) -> str:
        match = _N_OF_M.match(value)
        if value not in ("random", "same", "dropout") and not (match and int(match[1]) <= int(match[2])):
            raise InputError("masks", value, "it must be random, same, dropout or N:M with N at most M, such as 2:4")
        return value

    @model_validator(mode="after")
    def _pattern_decides(self) -> BoostConfig:
        """N:M says how sparse: a config that leaves the sparsity out gets it from there, and dumps as what it is."""
        if not self.n_of_m:
            return self
        if "sparsity" not in self.model_fields_set:
            object.__setattr__(self, "sparsity", 1 - self.density)
        if abs(self.sparsity - (1 - self.density)) > 1e-9:
            raise InputError(
                "sparsity", self.sparsity, f"with masks {self.masks} it is {1 - self.density:g}; leave it out"
            )
        return self

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        match = _N_OF_M.match(self.masks)
        return (int(match[1]), int(match[2])) if match else None

    @property
    def density(self) -> float:
        """Share of ones in a mask."""
        return self.n_of_m[0] / self.n_of_m[1] if self.n_of_m else 1 - self.sparsity

    def nominal_share(self) -> float:
        """Share of the weights that some mask keeps: 1 - s^d, `same` 1 - s, `dropout` 1 (METHODS.md)."""
        if self.masks == "dropout":
            return 1.0
        return self.density if self.masks == "same" else 1 - (1 - self.density) ** self.d


class Plain(nn.Module):
    """The weight transform that does nothing: one copy, no mask."""

    copies = 1
    seeded = False
    draws = False

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.kept = self.multiplied = shape[0] * shape[1]
        self.nominal_kept = float(self.kept)

    def forward(self, weight: Tensor) -> Tensor:
        """(rows, cols) to (1, rows, cols)."""
        return weight.unsqueeze(0)

    def union(self) -> Tensor | None:
        """None: every value is kept."""
        return None

    def multiplied_of(self, chosen: Tensor, axis: int) -> int:
        """Non-zeros of all copies in the chosen (bool) rows, axis 0, or columns, axis 1."""
        return int(chosen.sum()) * self.shape[1 - axis]

    def draw(self, step: int) -> None:
        """Nothing to draw."""


class MaskedCopies(nn.Module):
    """d masked views of one shared dense weight: W * m_1 ... W * m_d (CapaBoost, eq. 3).

    One parameter under d masks: autograd sums the branches' gradients, and a weight that no mask keeps gets none.

    Args:
        shape: (rows, cols) of the weight; cols is the contraction axis.
        site, role: name the tensor for the generator.
        seed: the run's seed, for masks without a mask_seed of their own.

    Raises:
        InputError: N:M masks along an axis that M does not divide.
    """

    seeded = True
    draws: bool
    """Whether the masks change from step to step."""
    packed: Tensor
    """uint8 (d, rows, ceil(cols / 8)): the masks, a bit for each value."""

    def __init__(self, shape: tuple[int, int], config: BoostConfig, site: str, role: str, seed: int) -> None:
        super().__init__()
        if config.n_of_m and shape[1] % config.n_of_m[1]:
            raise InputError("masks", config.masks, f"M must divide {shape[1]}, the inner side of {role} at {site}")
        self.shape, self.config, self.copies = shape, config, config.d
        self.draws = config.masks == "dropout"
        self._key = (config.mask_seed if config.mask_seed is not None else seed, site, role)
        masks = self._draw(())
        self.register_buffer("packed", pack_rows(masks), persistent=False)
        count = shape[0] * shape[1]
        dynamic = config.masks == "dropout"
        self.kept = count if dynamic else int(masks.any(0).sum())
        self.multiplied = int(masks.sum())
        self.nominal_kept = count * config.nominal_share()

    @property
    def masks(self) -> Tensor:
        """bool (d, rows, cols), made anew at every call."""
        return unpack_rows(self.packed, self.shape[1], torch.bool)

    def _draw(self, extra: tuple[object, ...]) -> Tensor:
        drawn = [self._mask(stream(*self._key, branch, *extra)) for branch in range(self._distinct())]
        return torch.stack(drawn * (self.copies if self._distinct() == 1 else 1))

    def _distinct(self) -> int:
        return 1 if self.config.masks == "same" else self.copies

    def _mask(self, base: int) -> Tensor:
        if self.config.n_of_m:
            return n_of_m_mask(self.shape, *self.config.n_of_m, base)
        return exact_mask(self.shape, self.config.sparsity, base)

    def forward(self, weight: Tensor) -> Tensor:
        """(rows, cols) to (d, rows, cols). `dropout` masks are lifted at evaluation: the weight times its density."""
        if self.config.masks == "dropout" and not self.training:
            return (weight * self.config.density).expand(self.copies, -1, -1)
        return weight * self.masks

    def union(self) -> Tensor | None:
        """bool (rows, cols): the values that some mask keeps; None where all are."""
        return None if self.config.masks == "dropout" else self.masks.any(0)

    def multiplied_of(self, chosen: Tensor, axis: int) -> int:
        """Non-zeros of all copies in the chosen (bool) rows, axis 0, or columns, axis 1."""
        return int((self.masks[:, chosen] if axis == 0 else self.masks[:, :, chosen]).sum())

    def draw(self, step: int) -> None:
        """Fresh masks for a step, where the kind asks for them."""
        if self.config.masks == "dropout":
            self.packed = pack_rows(self._draw(("step", step))).to(self.packed.device)

    def bases(self) -> list[int] | None:
        """The generator's base of each branch, where masks are random with an exact count; None for other kinds."""
        if self.config.masks != "random":
            return None
        return [stream(*self._key, branch) for branch in range(self.copies)]


WeightTransform = Plain | MaskedCopies


def fixed_masks(weights: WeightTransform) -> Masks | None:
    """A transform's masks as they are now; None where it does more than mask (a subclass, lifted `dropout` masks)."""
    if type(weights) is Plain:
        return Masks(None)
    if type(weights) is not MaskedCopies or (weights.config.masks == "dropout" and not weights.training):
        return None
    return Masks(weights.packed, weights.shape[1])


def transform(shape: tuple[int, int], boost: BoostConfig | None, site: str, role: str, seed: int) -> WeightTransform:
    """The weight transform of a tensor: masked copies where the method is boosted, else none."""
    return MaskedCopies(shape, boost, site, role, seed) if boost else Plain(shape)
