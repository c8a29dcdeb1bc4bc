"""The native size of CapaBoost over that of LoRA, on the papers' backbones: their shapes, without weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save

from peft_core.backbones import list_models, meta_backbone
from peft_core.methods import get_method, resolve
from peft_core.metrics.parameters import stored_parameters
from peft_core.records import MethodSpec
from peft_core.training.shape import attach_shape

PAPERS = [model.id for model in list_models() if model.origin == "paper"]
RANKS = {"roberta-base": (8, 16, 32, 64), "t5-3b": (8,)}
"""Those of the papers' tables; elsewhere 8 and 32."""
SITES = {"deberta-v3-base": ",sites=six"}
MOST = 0.76
ENTRY, DESCRIPTION = 120, 2000
"""Bytes that a tensor's entry in the header, and the rest of the header with adapter.json, stay below."""


def methods(rank: int, model: str) -> tuple[str, str]:
    sites = SITES.get(model, "")
    return f"capaboost_lora:rank={rank},d=2,sparsity=0.5{sites}", f"lora:rank={rank}{sites}"


@pytest.mark.parametrize(("model", "rank"), [(model, rank) for model in PAPERS for rank in RANKS.get(model, (8, 32))])
def test_values_that_are_stored(model, rank):
    ours, plain = (attach_shape(model, MethodSpec.parse(method))[0].counts for method in methods(rank, model))
    assert 0.7 < stored_parameters(ours) / stored_parameters(plain) <= 0.7505
    assert 4 * stored_parameters(ours) + ENTRY * len(ours) + DESCRIPTION <= MOST * 4 * stored_parameters(plain)


@pytest.mark.parametrize("model", ["roberta-base", "gpt2", "vit-b16"])
def test_bytes_of_the_file(model):
    backbone, sizes = meta_backbone(model), []
    backbone.model.to_empty(device="cpu")
    for method in map(MethodSpec.parse, methods(8, model)):
        attached = get_method(method.id).attach(backbone, resolve(method), torch.Generator().manual_seed(0))
        data = save(attached.stored())
        assert int.from_bytes(data[:8], "little") < ENTRY * len(attached.stored()) + DESCRIPTION / 2
        sizes.append(len(data))
    assert sizes[0] + DESCRIPTION <= MOST * sizes[1]
