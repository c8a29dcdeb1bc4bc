"""Prefixes against attention computed by hand, on every family."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from peft_core.backbones._backbone import TransformerBackbone
from peft_core.budget import budget
from peft_core.methods import get_method, resolve
from peft_core.methods._prefix import Prefix
from peft_core.methods._surgery import weight_at
from peft_core.records import MethodSpec
from peft_core.training.evaluate import layer_ranks
from tests.conftest import batch_for, miniature
from tests.methods.test_contract import attach as attach_with_head
from tests.methods.test_contract import loss_of, take_steps
from tests.miniatures import MINIATURES

ATTENTIONS = [
    (family, implementation, padded)
    for family in MINIATURES
    for implementation in (("eager",) if family == "deberta_v2" else ("eager", "sdpa"))
    for padded in ((False,) if family in ("vit", "deit") else (True, False))
]
FLAT = "prefix:length=3,reparametrize=false"


def backbone_of(family: str, implementation: str = "") -> TransformerBackbone:
    backbone = miniature(family)
    if implementation:
        backbone.model.set_attn_implementation(implementation)
    return backbone


def inputs_of(backbone: TransformerBackbone, padded: bool = True) -> dict[str, torch.Tensor]:
    batch = batch_for(backbone)
    if backbone.modality == "text" and not padded:
        batch = {"input_ids": batch["input_ids"].clamp_min(4), "attention_mask": torch.ones(6, 9, dtype=torch.long)}
    if backbone.family == "t5":
        batch["decoder_input_ids"] = torch.randint(4, 60, (6, 5), generator=torch.Generator().manual_seed(2))
    return batch


def attach(backbone: TransformerBackbone, method: str, scale: float = 1.0):
    """An attachment whose prefixes are large enough to be seen."""
    spec = MethodSpec.parse(method)
    attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(1))
    with torch.no_grad():
        for module in attached.modules.values():
            for parameter in module.parameters() if isinstance(module, Prefix) else ():
                parameter.mul_(scale / 0.02)
    attached.train(False)
    return attached


def project(backbone, name: str, x: torch.Tensor) -> torch.Tensor:
    site = next(site for site in backbone.sites("qkvo") if site.name == name)
    module = backbone.model.get_submodule(site.module)
    bias = None if module.bias is None else module.bias[site.offset : site.offset + site.out_features]
    return F.linear(x, weight_at(site, module.weight), bias)


def deberta_bias(backbone, place, q, k):
    """(rows, heads, queries, keys): q_i . K(d_ij) + k_j . Q(d_ji) with the buckets of the real tokens' distances."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

    config, stem = backbone.config, place.name.rpartition(".")[0]
    table = backbone.body.encoder.get_rel_embedding()
    span, heads = config.position_buckets, (place.heads, place.width // place.heads)
    pos_q, pos_k = (project(backbone, f"{stem}.{role}", table).unflatten(-1, heads) for role in "qk")
    buckets = build_relative_position(q, k, span, config.max_position_embeddings)[0]
    toward, back = ((sign * buckets + span).clamp(0, 2 * span - 1) for sign in (1, -1))
    c2p = torch.einsum("bhid,ijhd->bhij", q, pos_k[toward])
    p2c = torch.einsum("bhjd,jihd->bhij", k, pos_q[back])
    return c2p + p2c


def turned(x, theta: float):
    """x (..., positions, size) with the pair (i, i + size / 2) of position t turned by t theta^(-2 i / size)."""
    half = x.shape[-1] // 2
    angles = torch.outer(torch.arange(x.shape[-2]), theta ** -(torch.arange(half) / half))
    pairs = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones(()), angles)
    return torch.cat((pairs.real, pairs.imag), dim=-1)


def by_hand(backbone, place, hidden, context, visible, rows):
    """The attention with rows in front of its keys and values, as plain products. visible: (rows, queries, keys)."""
    stem, cross = place.name.rpartition(".")[0], "cross_" if place.after == "cross_attention" else ""
    size = place.width // place.heads

    def split(x):
        return x.unflatten(-1, (-1, size)).transpose(-3, -2)

    q, k, v = (
        split(project(backbone, f"{stem}.{cross}{role}", x))
        for role, x in zip("qkv", (hidden, context, context), strict=True)
    )
    scale, bias = size**-0.5, torch.zeros(())
    if backbone.family == "modernbert":
        theta = 160_000.0 if place.layer == 0 else 10_000.0
        q, k = turned(q, theta), turned(k, theta)
    if backbone.family == "llama":
        attention = backbone.model.get_submodule(place.module)
        if hasattr(attention, "k_norm"):
            q, k = attention.q_norm(q), attention.k_norm(k)
        q, k = turned(q, 10_000.0), turned(k, 10_000.0)
    if backbone.family == "deberta_v2":
        scale, bias = (3 * size) ** -0.5, (3 * size) ** -0.5 * deberta_bias(backbone, place, q, k)
    if backbone.family == "t5":
        scale = 1.0
        first = backbone.model.get_submodule(place.module.replace("block.1", "block.0"))
        if not cross:
            bias = first.compute_bias(q.shape[2], k.shape[2])
    k, v, prefix_k, prefix_v = (
        part.repeat_interleave(place.groups, -3) for part in (k, v, *(split(part) for part in rows))
    )
    scores = (q @ k.transpose(-1, -2) * scale + bias).masked_fill(~visible.unsqueeze(1), -torch.inf)
    scores = torch.cat((q @ prefix_k.transpose(-1, -2) * scale, scores), dim=-1)
    out = scores.softmax(-1) @ torch.cat((prefix_v.expand(len(v), -1, -1, -1), v), dim=2)
    out = out.transpose(1, 2).flatten(2)
    o = next(site for site in backbone.sites("qkvo") if site.name == f"{stem}.{cross}o")
    out = project(backbone, o.name, out) if o.module.startswith(place.module) else out
    if backbone.family == "albert":
        return backbone.model.get_submodule(f"{place.module}.LayerNorm")(hidden + out)
    return out


def visible_keys(backbone, place, batch, queries: int, keys: int) -> torch.Tensor:
    rows = 6
    if backbone.modality == "image" or place.group == "decoder.attention":
        visible = torch.ones(rows, queries, keys, dtype=torch.bool)
    else:
        visible = batch["attention_mask"].bool().unsqueeze(1).expand(-1, queries, -1)
    if backbone.family == "deberta_v2":
        visible = visible & batch["attention_mask"].bool().unsqueeze(2)
    if backbone.family == "modernbert" and place.layer == 1:
        places = torch.arange(keys)
        visible = visible & ((places.unsqueeze(1) - places).abs() <= backbone.config.local_attention // 2)
    if backbone.model.config.model_type == "mistral":
        places = torch.arange(keys)
        visible = visible & (places.unsqueeze(1) - places < backbone.config.sliding_window)
    causal = backbone.family in ("gpt2", "llama") or place.group == "decoder.attention"
    return visible & torch.ones(queries, keys, dtype=torch.bool).tril() if causal else visible


@torch.no_grad()
@pytest.mark.parametrize(("family", "implementation", "padded"), ATTENTIONS)
def test_every_attention_is_that_over_more_keys_and_values(family, implementation, padded):
    backbone = backbone_of(family, implementation)
    batch, seen = inputs_of(backbone, padded), {}
    attached = attach(backbone, FLAT)
    before = backbone.logits(batch)
    hooks = []
    for place in backbone.prefix_places():

        def record(module, args, kwargs, output, name=place.name):
            seen[name] = (args[0] if args else kwargs["hidden_states"], kwargs, output[0])

        hooks.append(backbone.model.get_submodule(place.module).register_forward_hook(record, with_kwargs=True))
    with attached.active():
        backbone.logits(batch)
    for hook in hooks:
        hook.remove()
    assert torch.equal(backbone.logits(batch), before)
    for place in backbone.prefix_places():
        hidden, kwargs, output = seen[place.name]
        context = kwargs.get("key_value_states")
        context = hidden if context is None else context
        visible = visible_keys(backbone, place, batch, hidden.shape[1], context.shape[1])
        expected = by_hand(backbone, place, hidden, context, visible, attached.modules[place.name].rows())
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", MINIATURES)
def test_the_order_of_rows_and_the_padding_change_nothing(family):
    backbone = backbone_of(family)
    batch, attached = inputs_of(backbone), attach(backbone, FLAT)
    with attached.active():
        first = backbone.logits(batch)
        if "input_ids" in batch:
            length = int(batch["attention_mask"][3].sum())
            alone = {name: value[3:4, : length if "decoder" not in name else None] for name, value in batch.items()}
            torch.testing.assert_close(backbone.logits(alone), first[3:4], rtol=1e-4, atol=1e-5)
        for module in attached.modules.values():
            module.P_K.copy_(module.P_K.flip(0))
            module.P_V.copy_(module.P_V.flip(1))
        torch.testing.assert_close(backbone.logits(batch), first, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_no_position_is_taken(family):
    backbone = miniature(family)
    tokens = torch.randint(4, 60, (2, 38 if family == "roberta" else 40), generator=torch.Generator().manual_seed(0))
    with attach(backbone, FLAT).active():
        assert backbone.logits({"input_ids": tokens}).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_decoding_token_by_token_equals_one_pass(family):
    backbone = backbone_of(family)
    tokens = torch.randint(4, 60, (2, 6), generator=torch.Generator().manual_seed(0))
    name = "decoder_input_ids" if family == "t5" else "input_ids"
    source = {"input_ids": tokens.flip(1)} if family == "t5" else {}
    model, cache, steps = (backbone.model if family == "t5" else backbone.body), None, []
    with attach(backbone, FLAT).active():
        whole = model(**source, **{name: tokens})[0]
        for at in range(6):
            output = model(**source, **{name: tokens[:, at : at + 1]}, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output[0])
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", MINIATURES)
def test_a_reparametrised_prefix_is_one_map_a_set_and_is_stored_flat(family):
    backbone = backbone_of(family)
    batch = inputs_of(backbone)
    attached = attach(backbone, "prefix:length=3,bottleneck=5")
    with attached.active():
        expected = backbone.logits(batch)
    expected.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in attached.trainable().values())
    groups = {place.group: [] for place in backbone.prefix_places()}
    for place in backbone.prefix_places():
        groups[place.group].append(place)
    assert len(groups) == (3 if backbone.encoder_decoder else 1)
    stored = attached.stored()
    assert set(stored) == {f"{place.name}.P_{part}" for place in backbone.prefix_places() for part in "KV"}
    for group, places in groups.items():
        trunk, parts = attached.modules[f"{group}.trunk"], [attached.modules[place.name] for place in places]
        assert trunk.E.shape == (3, 32) and trunk.W.shape == (5, 32)
        weight, bias = (torch.cat([getattr(part, name) for part in parts]) for name in "Wb")
        flat = (torch.tanh(trunk.E @ trunk.W.T + trunk.b) @ weight.T + bias).reshape(3, len(places), 2, -1)
        for index, place in enumerate(places):
            torch.testing.assert_close(stored[f"{place.name}.P_K"], flat[:, index, 0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(stored[f"{place.name}.P_V"].T, flat[:, index, 1], rtol=1e-5, atol=1e-6)
    with attached.active(), torch.autocast("cpu", torch.bfloat16):
        halved = backbone.logits(batch)
    attached.load_stored(stored, {})
    assert {name.removeprefix("adapter.") for name in attached.trainable()} == set(stored)
    with attached.active():
        assert torch.equal(backbone.logits(batch), expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(backbone.logits(batch), halved)
    assert all(torch.equal(value, stored[name]) for name, value in attached.stored().items())


def test_the_papers_count_and_what_trains_are_both_told():
    made, flat, boosted = budget(
        "roberta-base",
        [
            MethodSpec.parse(f"{method}:length=64{options}")
            for method, options in (("prefix", ""), ("prefix", ",reparametrize=false"), ("capaboost_prefix", ""))
        ],
    )
    values = 2 * 64 * 768 * 12
    assert made["weights"] == made["stored_parameters"] == flat["trainable"] == values
    assert made["trainable"] == 64 * 768 + 769 * 512 + 12 * 513 * 1536
    assert made["adapter_flops_nominal"] == made["adapter_flops_executed"] == 2 * values
    assert boosted["weights"] == 0.75 * values and boosted["adapter_flops_executed"] == 4 * values
    assert boosted["adapter_flops_nominal"] == 2 * values
    assert (made["rank_bound"], boosted["rank_bound"]) == (64, 128)


@pytest.mark.parametrize("family", ["roberta", "deberta_v2"])
def test_one_unmasked_copy_is_the_flat_prefix_bit_for_bit(family):
    losses = [
        take_steps(attach_with_head(miniature(family), method, length=4, **options), 4)
        for method, options in (("prefix", {"reparametrize": False}), ("capaboost_prefix", {"d": 1, "sparsity": 0.0}))
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("masks", "rank"), [("random", 8), ("2:4", 8), ("same", 4), ("dropout", 8)])
def test_masked_copies_are_more_rows(masks, rank):
    backbone = miniature("roberta")
    attached = attach_with_head(backbone, "capaboost_prefix", length=4, masks=masks)
    place = backbone.prefix_places()[0]
    prefix = attached.modules[place.name].train()
    keys, values = prefix.rows()
    for rows, weight, mask in ((keys, prefix.P_K, prefix.mask_K.masks), (values, prefix.P_V.T, prefix.mask_V.masks.mT)):
        assert torch.equal(rows, torch.cat([weight * mask[0], weight * mask[1]]))
    if masks == "2:4":
        assert (prefix.mask_K.masks.reshape(2, 4, 8, 4).sum(-1) == 2).all(), "along the features that queries meet"
        assert (prefix.mask_V.masks.sum(-1) == 2).all(), "along the four rows that the weights of attention meet"
    assert attached.updates()[0].bound == rank
    if masks != "dropout":
        assert {layer.numerical for layer in layer_ranks(attached)[1]} == {rank}
    loss_of(attached).backward()
    unseen = ~prefix.mask_K.masks.any(0)
    assert masks == "dropout" or not prefix.P_K.grad[unseen].any()
