"""A weight update as a LoRA folder of Hugging Face PEFT: `PeftModel.from_pretrained(model, folder)` loads it.

Masked, tied, gated or growing factors are one plain pair a module: A (R, in) and B (out, R) with B A the update and a
scale of 1, as `rank_pattern` and `alpha_pattern` say. The pieces of a fused projection are blocks of one pair.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from peft_core.backbones._linear import linear_shape
from peft_core.export.factors import Factors, decomposed, living, stacked
from peft_core.export.folders import write_json
from peft_core.export.names import public_name
from peft_core.export.recipe import Trained
from peft_core.methods import WeightUpdate, get_method
from peft_core.records import InputError, Site

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OWN = "ranklab.json"
"""Our own facts beside a format of others."""
PREFIX = "base_model.model."
INSTEAD = {
    "baseline": "it changes the backbone's own parameters or none of them, so it is no LoRA; merged and native can be "
    "had instead",
    "adapter": "bottleneck adapters have a nonlinearity and are no LoRA, and AdapterHub's adapters (1.3.0) asks for "
    "transformers 4.57, not the one used here; native can be had instead",
    "prefix": "a prefix of PEFT is the beginning of a decoder's cache and moves the tokens behind it, so on this "
    "architecture its outputs would differ; native can be had instead",
    "prompt": "PEFT has no format for prompts in every layer of a vision transformer; native can be had instead",
    "low-rank": "its update leaves the relative positions out, so it is no update of a weight; native can be had "
    "instead",
}


def check_peft(trained: Trained) -> None:
    """Refuses what is no update of weights: InputError with what can be had instead."""
    updates, attached = trained.attached.updates(), trained.attached
    fits = bool(updates) and all(update.kind == "delta" and update.left is not None for update in updates)
    if not fits or attached.overrides or attached.positions.left_out:
        method = get_method(trained.recipe.method)
        raise InputError("format", "peft", f"{method.id} cannot be one: {INSTEAD[method.family]}")


def save_peft(trained: Trained, folder: Path, energy: float | None = None) -> None:
    """Writes the adapter's configuration and weights, the head included.

    Args:
        energy: share of every update's squared norm that is kept, with the fewest directions; None: all.

    Raises:
        InputError: the method is no weight update, or values are not finite.
    """
    check_peft(trained)
    pairs = module_factors(trained)
    if energy is not None:
        pairs = {module: _cut(pair, energy) for module, pair in pairs.items()}
    tensors = {f"{PREFIX}{name}": value.detach() for name, value in trained.attached.head.items()}
    for module, pair in pairs.items():
        tensors |= lora_tensors(module, pair)
    finite(tensors, trained)
    transposed = {site.module for site in sites_by_name(trained).values() if site.transposed}
    config = lora_config(
        {module: pair.rank for module, pair in pairs.items()},
        task_type=task_type(trained),
        base_model_name_or_path=public_name(trained.recipe.model.id),
        revision=trained.recipe.model.commit,
        fan_in_fan_out=bool(pairs.keys() & transposed),
        modules_to_save=head_modules(trained) or None,
    )
    write_json(folder / CONFIG, config)
    save_tensors(folder / WEIGHTS, tensors)


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Contiguous copies that share no memory, as PEFT's own files have them."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(plain, path, metadata={"format": "pt"})


def lora_tensors(module: str, pair: Factors) -> dict[str, Tensor]:
    """The two tensors of a module by the names that PEFT gives them."""
    return {
        f"{PREFIX}{module}.lora_A.weight": pair.right,
        f"{PREFIX}{module}.lora_B.weight": pair.left,
    }


def lora_config(ranks: dict[str, int], **others: Any) -> dict[str, Any]:
    """adapter_config.json of modules with these ranks and a scale of 1."""
    common = Counter(ranks.values()).most_common(1)[0][0]
    return {
        "peft_type": "LORA",
        "auto_mapping": None,
        "inference_mode": True,
        "r": common,
        "lora_alpha": common,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "target_modules": sorted(ranks),
        "rank_pattern": dict(sorted(ranks.items())),
        "alpha_pattern": dict(sorted(ranks.items())),
        **others,
    }


def sites_by_name(trained: Trained) -> dict[str, Site]:
    """All maps of the backbone, whole and in parts, by name."""
    selections = ("all-linear", "six", "qkvo", "qv")
    return {site.name: site for selection in selections for site in trained.backbone.sites(selection)}  # type: ignore[arg-type]


@torch.no_grad()
def module_factors(trained: Trained) -> dict[str, Factors]:
    """By module one pair for all updates of its weight; those whose update is zero are left out.

    A pair whose inner dimension exceeds what its update can have is cut at the update's numerical rank. Where all are
    zero the first stays, as a pair of rank 1: PEFT takes no folder without one.
    """
    sites, parts, bounds = sites_by_name(trained), dict[str, list[Factors]](), Counter[str]()
    for update in trained.attached.updates():
        site = sites[update.site]
        parts.setdefault(site.module, []).append(_whole(trained, site, update))
        bounds[site.module] += update.bound
    pairs = {module: _least(stacked(found), bounds[module]) for module, found in parts.items()}
    kept = {module: pair for module, pair in pairs.items() if pair.rank}
    if kept:
        return kept
    module, zero = next(iter(pairs.items()))
    out, inner = zero.shape
    return {module: Factors(zero.left.new_zeros(out, 1), zero.right.new_zeros(1, inner))}


def _whole(trained: Trained, site: Site, update: WeightUpdate) -> Factors:
    """The update's factors with the outputs of the whole module, zeros outside the site."""
    assert update.left is not None and update.right is not None
    outputs = linear_shape(trained.backbone.model.get_submodule(site.module))[1]
    if outputs == site.out_features:
        return Factors(update.left, update.right)
    left = update.left.new_zeros(outputs, update.left.shape[1])
    left[site.offset : site.offset + site.out_features] = update.left
    return Factors(left, update.right)


def _least(pair: Factors, bound: int) -> Factors:
    pair, most = living(pair), min(bound, *pair.shape)
    if pair.rank <= most:
        return pair
    found = decomposed(pair)
    return found.cut(min(found.numerical_rank(), most), pair.left)


def _cut(pair: Factors, energy: float) -> Factors:
    found = decomposed(pair)
    return found.cut(max(1, min(found.rank_at(energy), found.numerical_rank())), pair.left)


def finite(tensors: dict[str, Tensor], trained: Trained) -> None:
    """Refuses values that are not finite: InputError."""
    broken = next((name for name, value in tensors.items() if not bool(value.isfinite().all())), None)
    if broken is not None:
        raise InputError("run", trained.recipe.method, f"{broken} holds values that are not finite; nothing is written")


def head_modules(trained: Trained) -> list[str]:
    """Paths of the modules that make up the task head."""
    names = tuple(trained.attached.head)
    return sorted(prefix.rstrip(".") for prefix in trained.backbone.head if any(n.startswith(prefix) for n in names))


def task_type(trained: Trained) -> str | None:
    """PEFT's word for the problem; None for images, for which it has none."""
    backbone = trained.backbone
    if backbone.modality == "image":
        return None
    if backbone.problem == "span":
        return "QUESTION_ANS"
    if backbone.problem == "generation" or not backbone.head:
        return "SEQ_2_SEQ_LM" if backbone.encoder_decoder else "CAUSAL_LM"
    return "SEQ_CLS"
