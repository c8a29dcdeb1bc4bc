"""BART and the LLaMA family: where their maps are, what their heads read, and a model that really was trained."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from peft_core.backbones import load_backbone, meta_backbone, model_info
from peft_core.backbones._linear import is_linear
from peft_core.budget import budget
from peft_core.metrics.flops import adapter_flops_executed
from peft_core.records import InputError, MethodSpec
from tests.backbones.test_problems import save_tokenizer
from tests.conftest import batch_for, miniature
from tests.methods.test_contract import attach

LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3", "gemma")
STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260K"
needs_stories = pytest.mark.skipif(not STORIES.is_dir(), reason="../shared/models/stories260K is not there")


@pytest.mark.parametrize("family", LLAMA_LIKE)
def test_a_llama_has_seven_maps_a_layer_and_narrow_keys(family):
    backbone = miniature(family)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    sites = backbone.sites("six")
    assert [site.module.rpartition(".")[2] for site in sites] == modules * 2
    assert [site.role for site in sites[:7]] == ["q", "k", "v", "o", "ffn_in", "ffn_in", "ffn_out"]
    linear = {name for name, module in backbone.model.named_modules() if is_linear(module)}
    assert {site.module for site in backbone.sites("all-linear")} == linear - {"score"}
    place, keys = backbone.prefix_places()[1], sites[8].out_features
    assert (place.width, place.heads * place.groups) == (keys, 4)
    assert place.heads == backbone.config.num_key_value_heads and place.layer == 1


def test_bart_numbers_encoder_and_decoder_through_and_has_a_cross_attention():
    backbone = miniature("bart")
    assert backbone.layers == 4
    cross = [site.module for site in backbone.sites("qkvo") if ".cross_" in site.name]
    assert cross == [
        f"model.decoder.layers.{i}.encoder_attn.{part}_proj" for i in (0, 1) for part in ("q", "k", "v", "out")
    ]
    assert [place.group for place in backbone.prefix_places()] == [
        "encoder.attention", "encoder.attention",
        *["decoder.attention", "decoder.cross_attention"] * 2,
    ]  # fmt: skip
    assert len(backbone.adapter_places("pfeiffer")) == 4 and len(backbone.adapter_places("houlsby")) == 8
    linear = {name for name, module in backbone.model.named_modules() if is_linear(module)}
    head = {name for name in linear if name.startswith("classification_head")}
    assert {site.module for site in backbone.sites("all-linear")} == linear - head and len(head) == 2


@torch.no_grad()
def test_barts_places_give_what_its_norms_add_to_the_residual():
    backbone = miniature("bart")
    entered, left = {}, {}
    for name, module in backbone.model.named_modules():
        module.register_forward_hook(lambda _, args, output, name=name: left.update({name: output}))
        module.register_forward_pre_hook(lambda _, args, name=name: entered.update({name: args[0] if args else None}))
    backbone.logits(batch_for(backbone))
    for norm, attention, ffn in zip(
        backbone.adapter_places("pfeiffer"), *(backbone.adapter_places("houlsby")[i::2] for i in (0, 1)), strict=True
    ):
        layer = norm.module.rpartition(".")[0]
        before = "encoder_attn_layer_norm" if ".decoder." in layer else "self_attn_layer_norm"
        assert (norm.form, attention.form, ffn.form) == ("post_norm", "sublayer", "sublayer")
        assert torch.equal(entered[f"{layer}.self_attn_layer_norm"], entered[layer] + left[attention.module])
        assert torch.equal(entered[norm.module], left[f"{layer}.{before}"] + left[ffn.module])


@torch.no_grad()
@pytest.mark.parametrize("family", [*LLAMA_LIKE, "bart"])
def test_the_head_reads_the_token_that_transformers_reads(family):
    backbone = miniature(family)
    batch = batch_for(backbone)
    if family == "bart":
        last = batch["attention_mask"].sum(1) - 1
        batch["input_ids"][torch.arange(6), last] = backbone.config.eos_token_id
    torch.testing.assert_close(backbone.logits(batch), backbone.model(**batch).logits)
    wide = {name: F.pad(value, (0, 3), value=backbone.config.pad_token_id) for name, value in batch.items()}
    wide["attention_mask"][:, -3:] = 0
    torch.testing.assert_close(backbone.logits(wide), backbone.logits(batch), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_rows_may_hold_end_tokens_within_and_as_padding():
    bart, llama = miniature("bart"), miniature("llama")
    batch = batch_for(bart)
    batch["input_ids"][0, 2] = bart.config.eos_token_id
    assert bart.logits(batch).isfinite().all()
    llama.config.pad_token_id = 7
    batch = {"input_ids": torch.tensor([[5, 6, 7], [8, 7, 7]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])}
    alone = llama.logits({name: value[:1] for name, value in batch.items()})
    torch.testing.assert_close(llama.logits(batch)[:1], alone)
    torch.testing.assert_close(alone, llama.model.score(llama.body(batch["input_ids"][:1]).last_hidden_state[:, -1]))


def test_every_head_of_queries_meets_a_prefix_of_shared_keys():
    """4 l times the features of all queries, however few the features of a key are."""
    for family, keys, queries in (("llama", 16, 32), ("gemma", 16, 64)):
        attached = attach(miniature(family), "capaboost_prefix", length=3, d=1, sparsity=0.0)
        assert sum(count.rows * count.cols for count in attached.counts) == 2 * 2 * 3 * keys
        assert adapter_flops_executed(attached.counts) == 2 * 4 * 3 * queries
        made = attach(miniature(family), "prefix", length=3, bottleneck=4)
        assert adapter_flops_executed(made.counts) == 2 * 4 * 3 * queries


@pytest.mark.parametrize("method", ["lora", "prefix"])
@pytest.mark.parametrize("family", ["t5", "bart", "llama", "mistral"])
def test_layers_computed_again_give_the_same_gradients(family, method):
    backbone = miniature(family, problem="generation")
    attached, batch = attach(backbone, method), batch_for(backbone)
    if backbone.encoder_decoder:
        batch["decoder_input_ids"] = batch["input_ids"].flip(0)
    gradients = []
    for layers in (nullcontext(), backbone.checkpointed(nullcontext)):
        with attached.active(), layers:
            backbone.logits(batch).logsumexp(-1).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in attached.trainable().items()})
        for parameter in attached.trainable().values():
            parameter.grad = None
    assert all(torch.equal(gradients[1][name], value) for name, value in gradients[0].items())


@needs_stories
def test_a_trained_llama_tells_a_story():
    backbone = load_backbone(str(STORIES), problem="generation")
    assert backbone.parameter_count() == model_info(str(STORIES)).parameters == 260_032
    assert backbone.max_length == 512 and backbone.end_tokens == (2,)
    words = backbone.processor(["Once upon a time", "Lily and Tom"], padding=True, return_tensors="pt")
    batch = {name: words[name] for name in ("input_ids", "attention_mask")}
    first, second = (backbone.processor.decode(row) for row in backbone.generate(batch, 20))
    assert first.startswith(", there was a little girl named Lily.") and second
    single = backbone.generate({"input_ids": batch["input_ids"][1:, : int(batch["attention_mask"][1].sum())]}, 20)
    assert backbone.processor.decode(single[0]) == second


@needs_stories
@pytest.mark.parametrize("method", ["lora", "capaboost_lora", "adapter_pfeiffer", "prefix"])
def test_a_trained_llama_learns_classes(method):
    backbone = load_backbone(str(STORIES), outputs=2, problem="classification")
    assert set(backbone.head_parameters()) == {"score.weight"}
    texts = ["The cat sat.", "A dog ran!", "The sun is big.", "We play now!"] * 2
    words = backbone.processor(texts, padding=True, return_tensors="pt")
    batch = {name: words[name] for name in ("input_ids", "attention_mask")}
    labels = torch.tensor([0, 1] * 4)
    attached = attach(backbone, method)
    optimizer = torch.optim.AdamW(attached.trainable().values(), lr=2e-2)
    losses = []
    for _ in range(15):
        with attached.active():
            loss = F.cross_entropy(backbone.logits(batch), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@needs_stories
def test_a_budget_of_a_local_llama_needs_no_weights():
    (told,) = budget(str(STORIES), [MethodSpec.parse("lora:rank=4")])
    assert told["trainable"] == 5 * (4 * (64 + 64) + 4 * (64 + 32))
    assert meta_backbone(str(STORIES), problem="generation").parameter_count() == 260_032


@pytest.mark.parametrize("family", [*LLAMA_LIKE, "bart", "mt5"])
def test_files_of_a_pretraining_serve_classes_and_text(family, tmp_path):
    """Written with the map onto the vocabulary; the body alone does where that map is the embedding."""
    written = miniature(family, problem="generation")
    kept = {name: value.clone() for name, value in written.model.state_dict().items()}
    for model in (written.model, written.body):
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder)
        save_tokenizer(folder)
        tied, alone = model.config.tie_word_embeddings, model is not written.model
        if family == "mt5" and alone:
            continue  # its body is the whole model
        problems = ("classification", "generation") if tied or not alone else ("classification",)
        for problem in problems:
            backbone = load_backbone(str(folder), outputs=2, problem=problem, labels=["w5", "w6"])
            assert all(
                torch.equal(backbone.model.get_parameter(name), kept[name]) for name in backbone.body_parameters()
            )
            assert model_info(str(folder)).parameters == backbone.parameter_count() == written.parameter_count()
        if len(problems) == 1:
            with pytest.raises(InputError, match=r"lm_head\.weight is absent"):
                load_backbone(str(folder), problem="generation")
