"""The rank report of an adapter folder, made anywhere: what its updates are, and how small it could be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from peft_core.export.factors import Decomposed, Factors, decomposed, rank_at
from peft_core.export.lora_folder import LoraFolder, read_lora_folder
from peft_core.export.names import public_name
from peft_core.export.native import is_native, load_native_update
from peft_core.export.recipe import Trained
from peft_core.methods import WeightUpdate
from peft_core.metrics.parameters import stored_parameters
from peft_core.metrics.rank import Rank, rank_of_factors, rank_of_matrix, rank_of_spectrum
from peft_core.records import InputError, RunFailure

ENERGY = 0.99


@dataclass(frozen=True)
class LayerReport:
    """One adapted map. shape: (out, in). inner: R of its factors, None where there are none.

    rank_at_energy: fewest directions that hold the report's share of ||dW||_F^2; parameters_at_energy: of such a pair.
    """

    site: str
    shape: tuple[int, int]
    inner: int | None
    rank: Rank
    parameters: int
    rank_at_energy: int

    @property
    def parameters_at_energy(self) -> int:
        return self.rank_at_energy * sum(self.shape)

    def described(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "site": self.site,
            "shape": list(self.shape),
            "inner": self.inner,
            "numerical": self.rank.numerical,
            "effective": self.rank.effective,
            "stable": self.rank.stable,
            "norm": self.rank.norm,
            "parameters": self.parameters,
            "rank_at_energy": self.rank_at_energy,
            "parameters_at_energy": self.parameters_at_energy,
            "spectrum": [float(f"{value:.6g}") for value in self.rank.singular_values.tolist()],
        }


@dataclass(frozen=True)
class Inspected:
    """A folder's report.

    others: values beside the updates, such as a head. bytes: of the files of weights. note: what the report leaves out.
    """

    folder: Path
    format: str
    kind: str
    base_model: str | None
    layers: tuple[LayerReport, ...]
    others: int
    bytes: int
    energy: float
    note: str | None = None

    def described(self) -> dict[str, Any]:
        """For JSON."""
        parameters = sum(layer.parameters for layer in self.layers)
        smaller = sum(layer.parameters_at_energy for layer in self.layers)
        count = len(self.layers)
        return {
            "folder": str(self.folder),
            "format": self.format,
            "kind": self.kind,
            "base_model": self.base_model,
            "energy": self.energy,
            "note": self.note,
            "layers": [layer.described() for layer in self.layers],
            "total": {
                "parameters": parameters,
                "parameters_at_energy": smaller,
                "share_at_energy": smaller / parameters if parameters else None,
                "other_parameters": self.others,
                "bytes": self.bytes,
                "numerical_mean": sum(layer.rank.numerical for layer in self.layers) / count,
                "effective_mean": sum(layer.rank.effective for layer in self.layers) / count,
                "stable_mean": sum(layer.rank.stable for layer in self.layers) / count,
                "norm": sum(layer.rank.norm**2 for layer in self.layers) ** 0.5,
            },
        }


def inspect_folder(folder: Path, energy: float = ENERGY, model: str | None = None) -> Inspected:
    """Ranks, norms and spectra of a PEFT LoRA folder or a native one.

    Args:
        energy: share of ||dW||_F^2 that a smaller adapter is to hold, layer by layer; above 0, at most 1.
        model: where a native folder's backbone is, if not where the folder says.

    Raises:
        InputError: the folder cannot be read, or holds no weight update.
    """
    check_energy(energy)
    if is_native(folder):
        return _inspect_native(load_native_update(folder, model), folder, energy)
    found = read_lora_folder(folder)
    layers = tuple(
        LayerReport(layer.module, layer.shape, layer.rank, _rank(taken, layer.shape), layer.parameters, at)
        for layer, taken, at in _decomposed_layers(found, energy)
    )
    others = sum(torch.Size(shape).numel() for shape in found.others.values())
    base = found.config.get("base_model_name_or_path")
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    named = base if isinstance(base, str) else None
    return Inspected(folder, "peft", "LORA", named, layers, others, size, energy, _note(found))


def _note(found: LoraFolder) -> str | None:
    kind = found.changes_base
    if kind is None:
        return None
    return f"loading it changes the base weights ({kind}): these are the ranks of its factors, not of its update"


def check_energy(energy: float) -> None:
    """Refuses a share that is none: InputError."""
    if not 0 < energy <= 1:
        raise InputError("compress", energy, "it must be a share above 0 and at most 1")


def _decomposed_layers(found: LoraFolder, energy: float) -> Iterator[tuple[Any, Decomposed, int]]:
    with found.opened() as file:
        for layer in found.layers:
            taken = decomposed(found.factors(file, layer))
            yield layer, taken, least_rank(taken, energy)


def least_rank(taken: Decomposed, energy: float) -> int:
    """Directions to keep for a share of the energy; never those that are only rounding."""
    return min(taken.rank_at(energy), taken.numerical_rank())


def _rank(taken: Decomposed, shape: tuple[int, int]) -> Rank:
    return rank_of_spectrum(taken.values[: min(shape)], shape)


def _inspect_native(trained: Trained, folder: Path, energy: float) -> Inspected:
    attached = trained.attached
    with torch.no_grad():
        updates = [update for update in attached.updates() if update.kind == "delta"]
    if not updates:
        method = trained.recipe.method
        raise InputError("adapter", str(folder), f"{method} learns no update of weights, so there is no rank to report")
    stored = Counter[str]()
    for count in attached.stored_counts():
        stored[count.site] += stored_parameters([count])
    return Inspected(
        folder,
        "native",
        trained.recipe.method,
        public_name(trained.recipe.model.id),
        tuple(_native_layer(update, stored[update.site], energy) for update in updates),
        sum(value.numel() for value in attached.head_parameters().values()),
        sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        energy,
    )


@torch.no_grad()
def _native_layer(update: WeightUpdate, stored: int, energy: float) -> LayerReport:
    inner: int | None
    try:
        if update.left is not None and update.right is not None:
            pair = Factors(update.left, update.right)
            rank, shape, inner = rank_of_factors(pair.left, pair.right), pair.shape, pair.rank
        else:
            assert update.delta is not None
            rank, shape, inner = rank_of_matrix(update.delta), (update.delta.shape[0], update.delta.shape[1]), None
    except RunFailure as error:
        raise InputError("adapter", update.site, str(error).rstrip(".")) from None
    at = min(rank_at(rank.singular_values, energy), rank.numerical)
    return LayerReport(update.site, shape, inner, rank, stored, at)
