"""A smaller adapter of an adapter: every update cut to the directions that hold a share of its energy, as PEFT LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from peft_core.export.factors import decomposed
from peft_core.export.folders import check_target, new_folder, write_json
from peft_core.export.lora_folder import LoraFolder, as_tensor, read_lora_folder
from peft_core.export.native import is_native, load_native_update
from peft_core.export.peft_format import CONFIG, WEIGHTS, check_peft, lora_config, save_peft, save_tensors
from peft_core.export.rank_report import check_energy, least_rank
from peft_core.records import InputError


def compress_folder(folder: Path, energy: float, to: Path, model: str | None = None) -> None:
    """Writes the adapter with the fewest directions that hold a share of each update's squared norm.

    The distance of each update is then at most sqrt(1 - energy) of its norm. Heads and biases are kept.

    Args:
        folder: a PEFT LoRA folder or a native one.
        energy: above 0, at most 1.
        to: a folder that is empty or does not exist.
        model: where a native folder's backbone is, if not where the folder says.

    Raises:
        InputError: a folder that cannot be read, or whose loading changes the base weights.
    """
    check_energy(energy)
    check_target(to)
    if is_native(folder):
        trained = load_native_update(folder, model)
        check_peft(trained)
        with new_folder(to) as fresh:
            save_peft(trained, fresh, energy)
            (fresh / "README.md").write_text(_card(folder, energy), encoding="utf-8")
        return
    found = read_lora_folder(folder)
    if (kind := found.changes_base) is not None:
        raise InputError("adapter", str(folder), f"loading it changes the base weights ({kind}), so it cannot be cut")
    with new_folder(to) as fresh:
        tensors, ranks = _cut(found, energy)
        write_json(fresh / CONFIG, _config(found, ranks))
        save_tensors(fresh / WEIGHTS, tensors)
        (fresh / "README.md").write_text(_card(folder, energy), encoding="utf-8")


def _cut(found: LoraFolder, energy: float) -> tuple[dict[str, Tensor], dict[str, int]]:
    """All tensors of the smaller adapter, and its ranks by module. One module stays where all updates are zero."""
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    with found.opened() as file:
        for layer in found.layers:
            taken = decomposed(found.factors(file, layer))
            rank = least_rank(taken, energy)
            if rank == 0 and (ranks or layer is not found.layers[-1]):
                continue
            a, b = file.get_tensor(layer.a), file.get_tensor(layer.b)
            pair, rank = taken.cut(max(rank, 1), taken.u), max(rank, 1)
            tensors[layer.a] = as_tensor(pair.right, (rank, *layer.shape_a[1:]), a)
            tensors[layer.b] = as_tensor(pair.left, (layer.shape_b[0], rank, *layer.shape_b[2:]), b)
            ranks[layer.module] = rank
        scales = {layer.b.removesuffix("weight") + "bias": layer.scale for layer in found.layers}
        for name in found.others:  # PEFT scales a bias of B as it scales the product
            value = file.get_tensor(name)
            tensors[name] = (value * scales[name]).to(value.dtype) if name in scales else value
    return tensors, ranks


def _config(found: LoraFolder, ranks: dict[str, int]) -> dict[str, Any]:
    """The folder's own configuration with these modules, these ranks and a scale of 1."""
    ours = lora_config(ranks)
    changed = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_rslora", "inference_mode")
    chosen = {name: None for name in ("layers_to_transform", "layers_pattern", "exclude_modules")}
    return {**ours, **found.config, **{name: ours[name] for name in changed}, **chosen}


def _card(folder: Path, energy: float) -> str:
    said = f"An adapter cut from `{folder.name.replace('`', '')}`: of every update the fewest directions that hold"
    return f"---\nlibrary_name: peft\ntags: [ranklab]\n---\n\n{said} {energy:.6g} of its squared norm.\n"
