"""Deep prompts against a ViT written out, and what they cost."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from peft_core.budget import budget
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.records import MethodSpec
from tests.conftest import batch_for, miniature
from tests.methods.test_contract import attach


def plain_vit(backbone, pixels, prompts):
    """Two pre-LN layers written out, with prompts behind the class token of each one's input."""
    vit, heads = backbone.body, backbone.config.num_attention_heads
    x = vit.embeddings(pixels)
    cls, patches = x[:, :1], x[:, 1:]
    for layer, prompt in zip(vit.layers, prompts, strict=True):
        x = torch.cat((cls, prompt.expand(len(x), -1, -1), patches), dim=1)
        normed = layer.layernorm_before(x)
        maps = (layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)
        q, k, v = (fn(normed).unflatten(-1, (heads, -1)).transpose(1, 2) for fn in maps)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + layer.attention.o_proj((weights @ v).transpose(1, 2).flatten(2))
        x = x + layer.mlp.fc2(F.gelu(layer.mlp.fc1(layer.layernorm_after(x))))
        cls, patches = x[:, :1], x[:, 1 + len(prompt) :]
    return vit.layernorm(torch.cat((cls, patches), dim=1))


@torch.no_grad()
@pytest.mark.parametrize("family", ["vit", "deit"])
def test_prompts_equal_a_vit_written_by_hand(family):
    backbone = miniature(family)
    attached, batch = attach(backbone, "vpt_deep", length=4), batch_for(backbone)
    prompts = [module.P for module in attached.modules.values()]
    bound = (6 / (3 * 8**2 + 32)) ** 0.5
    assert all(0.9 * bound < prompt.abs().max() <= bound for prompt in prompts)
    with attached.active():
        hidden = backbone.body(**batch).last_hidden_state
    torch.testing.assert_close(hidden, plain_vit(backbone, batch["pixel_values"], prompts), rtol=1e-4, atol=1e-5)


def test_prompts_cost_what_their_tokens_cost():
    entry = budget("vit-b16", [MethodSpec.parse("vpt_deep:length=10")])[0]
    assert entry["trainable"] == entry["weights"] == 12 * 10 * 768 and entry["rank_bound"] is None
    backbone = miniature("vit")
    attached = attach(backbone, "vpt_deep", length=4)
    maps, attention = 2 * (4 * 32 * 32 + 2 * 32 * 64), 4 * 32
    longer = 2 * (4 * maps + attention * ((5 + 4) ** 2 - 5**2))
    assert 5 * adapter_flops_executed(attached.counts) == pytest.approx(longer, rel=1e-3)
    assert adapter_flops_executed(attached.counts) == adapter_flops_nominal(attached.counts)
