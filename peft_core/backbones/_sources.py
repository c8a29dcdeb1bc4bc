"""From what is written for a model to a folder with its weights, and the record of where they are from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peft_core.backbones._catalog import ASSETS, family_for, hub_model, local_folder, paper_model
from peft_core.records import InputError


@dataclass(frozen=True)
class ModelSource:
    """A model whose weights are at hand."""

    id: str
    """Names exactly these weights: for a model of the Hub owner/name@commit."""
    origin: Literal["embedded", "local", "hub"]
    folder: Path
    commit: str | None = None
    said: str | None = None
    """What somebody should know: that a copy is used because the Hub does not answer."""

    def described(self) -> dict[str, str]:
        """What results and adapters record: origin, id and, for the Hub, the commit."""
        found = {"origin": self.origin, "id": self.id.partition("@")[0] if self.commit else self.id}
        return found | ({"commit": self.commit} if self.commit else {})


def check_model(model_id: str) -> None:
    """Refuses a model whose weights cannot be had, without downloading them.

    Raises:
        InputError: there is no such model, or its weights, size or architecture cannot be used.
    """
    folder = _folder(model_id)
    if folder is not None:
        if not any(folder.glob("*.safetensors")):
            raise InputError("model", model_id, "this folder holds no safetensors weights")
        return
    family_for(model_id, hub_model(model_id).config)


def fetch_model(
    model_id: str, commit: str | None = None, progress: Callable[[float, str], None] | None = None
) -> ModelSource:
    """A model with its weights on this disk, downloaded from the Hub where they are not there yet.

    Args:
        model_id: an embedded model's id, a paper's backbone, a local folder, or a Hub id.
        commit: of the Hub, 40 hexadecimal digits; None: what the id's revision stands for now.
        progress: hears of a download: the share that is done, from 0 to 1, and a sentence.

    Raises:
        InputError: there is no such model, it cannot be had, or it holds what is not loaded.
    """
    folder = _folder(model_id)
    if folder is not None:
        return ModelSource(model_id, "embedded" if folder.parent == ASSETS else "local", folder)
    from peft_core.backbones._hub import download

    said = (lambda sentence: progress(0.0, sentence)) if progress is not None else None
    found = hub_model(model_id, commit, patient=True, said=said)
    family_for(model_id, found.config)
    where = download(found, model_id, progress)
    return ModelSource(f"{found.hub.repository}@{found.commit}", "hub", where, found.commit, found.said)


def _folder(model_id: str) -> Path | None:
    """The folder of an embedded or local model; a paper's backbone is one of the Hub."""
    return None if paper_model(model_id) is not None else local_folder(model_id)
