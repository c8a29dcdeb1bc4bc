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
METHODS = ("capaboost_lora:rank=8,d=2,sparsity=0.5", "lora:rank=8")
MOST = 0.76


@pytest.mark.parametrize("model", PAPERS)
def test_values_that_are_stored(model):
    counts = [stored_parameters(attach_shape(model, MethodSpec.parse(method))[0].counts) for method in METHODS]
    assert 0.7 < counts[0] / counts[1] <= 0.7505


@pytest.mark.parametrize("model", ["roberta-base", "gpt2", "vit-b16"])
def test_bytes_of_the_file(model):
    backbone, sizes = meta_backbone(model), []
    backbone.model.to_empty(device="cpu")
    for method in map(MethodSpec.parse, METHODS):
        attached = get_method(method.id).attach(backbone, resolve(method), torch.Generator().manual_seed(0))
        sizes.append(len(save(attached.stored())) + 1000)  # the description has fewer bytes
    assert sizes[0] <= MOST * sizes[1]
