"""What the tests share: small random backbones of every family."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from tests.miniatures import MINIATURES

NO_PLACE = {
    "bitfit": ("t5", "mt5", "modernbert", "llama", "mistral", "qwen3", "gemma"),
    "head": ("t5", "mt5"),
}
"""Methods by families that lack what they train: biases, a task head."""


def has_place(method, family: str) -> bool:
    """Whether a method has a place in backbones of a family."""
    return (
        family not in NO_PLACE.get(method.id, ())
        and ("image" if "image_size" in MINIATURES[family] else "text") in method.modalities
    )


def home(method_id: str) -> str:
    """A family that a method has a place in: the first one that has it."""
    from peft_core.methods import get_method

    return next(family for family in MINIATURES if has_place(get_method(method_id), family))


def miniature(family: str, outputs: int = 3, seed: int = 0, problem="classification"):
    """A small random backbone of a family, on the CPU."""
    import torch
    import transformers

    from peft_core.backbones._backbone import TransformerBackbone
    from peft_core.backbones._family import families

    values = dict(MINIATURES[family])
    found = next(entry for entry in families() if values["model_type"] in entry.model_types)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values, num_labels=outputs)
    config.architectures = []
    config.use_cache = False
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, found.task(problem).auto_model).from_config(config)
    return TransformerBackbone(f"mini-{family}", found, model, outputs=outputs, problem=problem)


def batch_for(backbone, rows: int = 6, width: int = 9, seed: int = 0):
    """Random inputs of a backbone, with padding for text."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    if backbone.modality == "image":
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    lengths = torch.randint(3, width + 1, (rows, 1), generator=generator)
    lengths[0] = width
    mask = (torch.arange(width) < lengths).long()
    tokens = torch.randint(4, 60, (rows, width), generator=generator)
    pad = backbone.model.config.pad_token_id or 0
    return {"input_ids": torch.where(mask.bool(), tokens, pad), "attention_mask": mask}


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """No test touches the user's store."""
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path / "home"))
