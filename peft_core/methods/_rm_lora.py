"""What r_lora, gm_lora and rm_lora share: LoRA with an orthogonality penalty, a random gradient mask, or both.

The paper adapts all six maps of DeBERTa (told by its counts), of ViT the classifier alone, and does not say which of
GPT-2; here the sites are an option like LoRA's, and a head is no site. Its Table 5 prints ||Delta W Delta W^T - I||_F^2
and a numerical rank without a tolerance; ranks below r suggest a loose one. Here ranks are those of `metrics.rank`.
"""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, BoostableConfig
from peft_core.methods._gradient_mask import GradientMask
from peft_core.methods._low_rank import Start, attach_low_rank
from peft_core.methods._modules import LowRank
from peft_core.methods._orthogonality import squared_penalty, unsquared_penalty
from peft_core.records import Backbone, Frozen, InputError

A_STD = 0.02
"""The paper says Gaussian and gives no deviation; AdaLoRA's is taken."""


class Orthogonal(Frozen):
    """Options of the penalty."""

    orthogonality: float = Field(1e-3, ge=0, le=100, description="coefficient of the penalty; the paper gives none")
    squared: bool = Field(True, description="squared norms, a mean over pairs; false: AdaLoRA's unsquared form")


class Masked(Frozen):
    """Options of the gradient mask."""

    directions: int | None = Field(None, ge=1, le=8192, description="directions that learn in a step; empty: rank / 2")
    strict: bool = Field(False, description="hold the resting directions still, moments and decay included")


def attach_regularised(
    backbone: Backbone,
    config: BoostableConfig,
    generator: torch.Generator,
    orthogonal: Orthogonal | None,
    masked: Masked | None,
) -> Attached:
    """LoRA with a Gaussian A, and what is given of penalty and mask.

    Raises:
        InputError: more directions than the rank.
    """
    attached = attach_low_rank(backbone, config, generator, config.boost, Start(a_std=A_STD))
    pairs = {name: module for name, module in attached.modules.items() if isinstance(module, LowRank)}
    if orthogonal is not None:
        penalty = squared_penalty if orthogonal.squared else unsquared_penalty
        attached.penalty = lambda: orthogonal.orthogonality * penalty([(pair.A, pair.B) for pair in pairs.values()])
    if masked is not None:
        directions = masked.directions if masked.directions is not None else max(1, config.rank // 2)
        if directions > config.rank:
            raise InputError("directions", directions, f"it must be at most the rank ({config.rank})")
        GradientMask(pairs, attached.seed, directions, masked.strict).install(attached)
    return attached
