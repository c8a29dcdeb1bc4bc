"""Sites, places, features and heads of random miniatures in a real forward pass."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import nn

from peft_core.backbones._backbone import TransformerBackbone, is_linear
from peft_core.records import Site
from tests.miniatures import MINIATURES

OUTSIDE = {"classifier", "pre_classifier", "pooler", "head", "score", "lm_head"}
OUTSIDE |= {"embeddings_project", "embedding_hidden_mapping_in", "classification_head"}
"""Parts of the names of linear maps before the first layer and behind the last."""


@torch.no_grad()
def test_a_hook_at_every_site_sees_its_features(
    miniature: TransformerBackbone, batch_for: Callable[..., dict[str, torch.Tensor]]
) -> None:
    seen: Counter[str] = Counter()

    def record(site: Site) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[site.name] += 1
            assert args[0].shape[-1] == site.in_features
            assert output.shape[-1] >= site.offset + site.out_features

        return hook

    for site in miniature.sites("all-linear"):
        miniature.model.get_submodule(site.module).register_forward_hook(record(site))
    miniature.logits(batch_for(miniature))
    twice = {"deberta_v2": {"q", "k"}, "albert": {site.role for site in miniature.sites("six")}}
    expected = {site.name: 1 + (site.role in twice.get(miniature.family, ())) for site in miniature.sites("all-linear")}
    assert seen == expected


@torch.no_grad()
def test_an_update_hooked_to_a_site_equals_one_merged_into_its_weight(
    miniature: TransformerBackbone, batch_for: Callable[..., dict[str, torch.Tensor]]
) -> None:
    """DeBERTa's query and key maps and ALBERT's layers run twice, so this holds only where both uses are updated."""
    batch = batch_for(miniature)
    generator = torch.Generator().manual_seed(5)
    for site in miniature.sites("six"):
        module = miniature.model.get_submodule(site.module)
        delta = 0.5 * torch.randn(site.out_features, site.in_features, generator=generator)

        def hook(
            module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor, site: Site = site, delta=delta
        ) -> torch.Tensor:
            output = output.clone()
            output[..., site.offset : site.offset + site.out_features] += args[0] @ delta.T
            return output

        handle = module.register_forward_hook(hook)
        hooked = miniature.logits(batch)
        handle.remove()
        full = module.weight.T if site.transposed else module.weight
        part = full[site.offset : site.offset + site.out_features]
        part += delta
        torch.testing.assert_close(miniature.logits(batch), hooked, atol=1e-5, rtol=1e-4)
        part -= delta


@torch.no_grad()
@pytest.mark.parametrize("kind", ["pfeiffer", "houlsby"])
def test_every_adapter_place_gives_a_tensor_of_its_width_and_matters(
    miniature: TransformerBackbone, batch_for: Callable[..., dict[str, torch.Tensor]], kind: str
) -> None:
    batch = batch_for(miniature)
    before = miniature.logits(batch)
    bump = torch.linspace(-1, 1, miniature.hidden_size)

    def add(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        assert output.shape[-1] == miniature.hidden_size
        return output + bump

    for place in miniature.adapter_places(kind):
        handle = miniature.model.get_submodule(place.module).register_forward_hook(add)
        after = miniature.logits(batch)
        handle.remove()
        assert not torch.allclose(before, after, atol=1e-6), place.name


class Tap:
    """Keeps the first input and the output of modules in the latest forward."""

    def __init__(self, model: nn.Module, paths: tuple[str, ...]) -> None:
        self.entered: dict[str, torch.Tensor] = {}
        self.left: dict[str, torch.Tensor] = {}
        for path in paths:
            model.get_submodule(path).register_forward_hook(self._hook(path))

    def _hook(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            self.entered[path], self.left[path] = args[0], output

        return hook


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "first_norm"),
    [
        ("roberta", "attention.output.LayerNorm"),
        ("xlm_roberta", "attention.output.LayerNorm"),
        ("bert", "attention.output.LayerNorm"),
        ("deberta_v2", "attention.output.LayerNorm"),
        ("electra", "attention.output.LayerNorm"),
        ("distilbert", "sa_layer_norm"),
        ("albert", "albert_layers.0.attention.LayerNorm"),
    ],
)
def test_post_norm_families_add_the_sublayer_to_its_residual_input(
    build: Callable[[str], TransformerBackbone],
    batch_for: Callable[..., dict[str, torch.Tensor]],
    family: str,
    first_norm: str,
) -> None:
    """With dropout on: a sublayer place gives z after dropout, so the LayerNorm after it gets exactly z + x."""
    backbone = build(family)
    backbone.model.train()
    after_attention, after_ffn = backbone.adapter_places("houlsby")[:2]
    norm = backbone.adapter_places("pfeiffer")[0]
    layer = f"{backbone.architecture.stacks[0].layers}.0"
    first_norm = f"{layer}.{first_norm}"
    tap = Tap(backbone.model, (layer, after_attention.module, after_ffn.module, norm.module, first_norm))
    torch.manual_seed(0)
    backbone.logits(batch_for(backbone))
    assert (after_attention.after, after_ffn.after) == ("attention", "ffn")
    assert {after_attention.form, after_ffn.form} == {"sublayer"} and norm.form == "post_norm"
    assert torch.equal(tap.entered[first_norm], tap.left[after_attention.module] + tap.entered[layer])
    assert torch.equal(tap.entered[norm.module], tap.left[after_ffn.module] + tap.left[first_norm])


@torch.no_grad()
@pytest.mark.parametrize("family", ["vit", "gpt2", "t5", "mt5", "modernbert", "deit", "llama", "qwen3", "gemma"])
def test_pre_norm_families_sum_their_sublayers_onto_the_layers_input(
    build: Callable[[str], TransformerBackbone], batch_for: Callable[..., dict[str, torch.Tensor]], family: str
) -> None:
    """The residual place gives x + all z of the layer; T5's cross-attention is no Houlsby place and added by hand."""
    backbone = build(family)
    blocks = [f"{stack.layers}.{index}" for stack in backbone.architecture.stacks for index in range(2)]
    cross = {"decoder.block.0": "decoder.block.0.layer.1.dropout", "decoder.block.1": "decoder.block.1.layer.1.dropout"}
    sublayers = {
        block: [place.module for place in backbone.adapter_places("houlsby") if place.layer == layer]
        + ([cross[block]] if block in cross else [])
        for layer, block in enumerate(blocks)
    }
    ends = [place.module for place in backbone.adapter_places("pfeiffer")]
    assert {place.form for place in backbone.adapter_places("pfeiffer")} == {"residual"}
    tap = Tap(backbone.model, tuple({*blocks, *ends, *(path for paths in sublayers.values() for path in paths)}))
    backbone.logits(batch_for(backbone))
    for block, end in zip(blocks, ends, strict=True):
        total = tap.entered[block] + sum(tap.left[path] for path in sublayers[block])
        torch.testing.assert_close(tap.left[end], total, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("bert", "self.query self.key self.value attention.output.dense intermediate.dense 1.output.dense"),
        ("roberta", "self.query self.key self.value attention.output.dense intermediate.dense 1.output.dense"),
        (
            "deberta_v2",
            "self.query_proj self.key_proj self.value_proj attention.output.dense intermediate.dense 1.output.dense",
        ),
        ("xlm_roberta", "self.query self.key self.value attention.output.dense intermediate.dense 1.output.dense"),
        ("distilbert", "q_lin k_lin v_lin out_lin ffn.lin1 ffn.lin2"),
        ("electra", "self.query self.key self.value attention.output.dense intermediate.dense 1.output.dense"),
        ("albert", "attention.query attention.key attention.value attention.dense 0.ffn 0.ffn_output"),
        ("vit", "q_proj k_proj v_proj o_proj mlp.fc1 mlp.fc2"),
        ("deit", "q_proj k_proj v_proj o_proj mlp.fc1 mlp.fc2"),
        ("gpt2", "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj"),
        ("t5", "SelfAttention.q SelfAttention.k SelfAttention.v SelfAttention.o wi wo"),
    ],
)
def test_roles_name_the_right_modules(build: Callable[[str], TransformerBackbone], family: str, expected: str) -> None:
    sites = [site for site in build(family).sites("six") if site.layer == 1]
    attention = ["qkv"] if family == "gpt2" else ["q", "k", "v"]
    assert [site.role for site in sites] == [*attention, "o", "ffn_in", "ffn_out"]
    assert all(site.module.endswith(end) for site, end in zip(sites, expected.split(), strict=True))


def test_fused_maps_of_modernbert_are_sites_apart(build: Callable[[str], TransformerBackbone]) -> None:
    sites = [site for site in build("modernbert").sites("six") if site.layer == 1]
    assert [site.name for site in sites] == [
        f"layer.1.{name}" for name in ("q", "k", "v", "o", "ffn_gate", "ffn_in", "ffn_out")
    ]
    assert [site.offset for site in sites] == [0, 32, 64, 0, 0, 64, 0]
    ends = ["attn.Wqkv"] * 3 + ["attn.Wo"] + ["mlp.Wi"] * 2 + ["mlp.Wo"]
    assert all(site.module == f"model.layers.1.{end}" for site, end in zip(sites, ends, strict=True))


@torch.no_grad()
def test_the_gate_of_modernbert_is_the_half_that_is_activated(build: Callable[[str], TransformerBackbone]) -> None:
    backbone = build("modernbert")
    gate = next(site for site in backbone.sites("six") if site.name == "layer.0.ffn_gate")
    mlp = backbone.model.get_submodule("model.layers.0.mlp")
    x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    whole = mlp.Wi(x)
    halves = whole[..., gate.offset : gate.offset + gate.out_features], whole[..., gate.out_features :]
    torch.testing.assert_close(mlp(x), mlp.Wo(torch.nn.functional.gelu(halves[0]) * halves[1]))


def test_all_linear_covers_every_map_between_embeddings_and_head(miniature: TransformerBackbone) -> None:
    body = {name for name, module in miniature.model.named_modules() if is_linear(module)}
    outside = {name for name in body if set(name.split(".")) & OUTSIDE}
    assert {site.module for site in miniature.sites("all-linear")} == body - outside


def test_maps_without_a_role_are_other() -> None:
    """DeBERTa with separate position maps (share_att_key off) has linear maps that no role names."""
    import transformers

    from peft_core.backbones._family import family_of

    family = family_of("deberta-v2")
    assert family is not None
    config = transformers.DebertaV2Config(
        num_hidden_layers=1, relative_attention=True, share_att_key=False, pos_att_type=["p2c", "c2p"]
    )
    with torch.device("meta"):
        backbone = TransformerBackbone("x", family, transformers.DebertaV2ForSequenceClassification(config))
    other = [site for site in backbone.sites("all-linear") if site.role == "other"]
    assert [site.name.rpartition(".")[2] for site in other] == ["pos_key_proj", "pos_query_proj"]


def test_gated_t5_has_both_input_maps() -> None:
    import transformers

    from peft_core.backbones._family import family_of

    family = family_of("t5")
    assert family is not None
    config = transformers.T5Config(num_layers=1, feed_forward_proj="gated-gelu")
    with torch.device("meta"):
        backbone = TransformerBackbone("x", family, transformers.T5ForConditionalGeneration(config))
    ffn = [site.name for site in backbone.sites("six") if site.role == "ffn_in"]
    assert ffn == ["encoder.0.ffn_gate", "encoder.0.ffn_in", "decoder.0.ffn_gate", "decoder.0.ffn_in"]


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("bert", lambda model, features: model.classifier(model.bert.pooler(features.unsqueeze(1)))),
        ("roberta", lambda model, features: model.classifier(features.unsqueeze(1))),
        ("deberta_v2", lambda model, features: model.classifier(model.pooler(features.unsqueeze(1)))),
        ("xlm_roberta", lambda model, features: model.classifier(features.unsqueeze(1))),
        ("distilbert", lambda model, features: model.classifier(model.pre_classifier(features).relu())),
        ("electra", lambda model, features: model.classifier(features.unsqueeze(1))),
        ("albert", lambda model, features: model.classifier(model.albert.pooler(features).tanh())),
        ("modernbert", lambda model, features: model.classifier(model.head(features))),
        ("deit", lambda model, features: model.classifier(features)),
        ("vit", lambda model, features: model.classifier(features)),
        ("gpt2", lambda model, features: model.score(features)),
    ],
)
def test_features_are_what_the_head_reads(
    build: Callable[[str], TransformerBackbone],
    batch_for: Callable[..., dict[str, torch.Tensor]],
    family: str,
    head: Callable[[nn.Module, torch.Tensor], torch.Tensor],
) -> None:
    backbone = build(family)
    batch = batch_for(backbone)
    torch.testing.assert_close(head(backbone.model, backbone.features(batch)), backbone.logits(batch))


@torch.no_grad()
def test_modernbert_reads_the_first_token_or_the_mean_as_its_config_says(
    build: Callable[[str], TransformerBackbone], batch_for: Callable[..., dict[str, torch.Tensor]]
) -> None:
    backbone = build("modernbert")
    batch = batch_for(backbone)
    hidden = backbone.body(**batch).last_hidden_state
    for pooling, expected in (("mean", hidden.mean(dim=1)), ("cls", hidden[:, 0])):
        backbone.config.classifier_pooling = pooling
        torch.testing.assert_close(backbone.features(batch), expected)
        torch.testing.assert_close(backbone.model.classifier(backbone.model.head(expected)), backbone.logits(batch))


@torch.no_grad()
@pytest.mark.parametrize("family", [name for name in MINIATURES if "image_size" not in MINIATURES[name]])
def test_padding_changes_nothing(
    build: Callable[[str], TransformerBackbone], batch_for: Callable[..., dict[str, torch.Tensor]], family: str
) -> None:
    backbone = build(family)
    batch = batch_for(backbone)
    pad = backbone.config.pad_token_id or 0
    wide = dict(batch)
    wide["input_ids"] = torch.nn.functional.pad(batch["input_ids"], (0, 3), value=pad)
    wide["attention_mask"] = torch.nn.functional.pad(batch["attention_mask"], (0, 3))
    torch.testing.assert_close(backbone.features(wide), backbone.features(batch), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(backbone.logits(wide), backbone.logits(batch), atol=1e-5, rtol=1e-4)
    ids_only = {"input_ids": batch["input_ids"]}
    torch.testing.assert_close(backbone.features(ids_only), backbone.features(batch), atol=1e-5, rtol=1e-4)


def test_everything_is_frozen_and_in_evaluation_mode(miniature: TransformerBackbone) -> None:
    assert not any(parameter.requires_grad for parameter in miniature.model.parameters())
    assert not any(module.training for module in miniature.model.modules())


def test_image_tokens_count_the_class_token(build: Callable[[str], TransformerBackbone]) -> None:
    assert build("vit").image_tokens == 5
    assert build("deit").image_tokens == 6
    assert build("deit").body.embeddings.position_embeddings.shape[1] == 6
    assert build("roberta").image_tokens == 0
