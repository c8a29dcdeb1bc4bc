"""Architectures without a file of their own: low-rank methods over all linear maps, a sentence for the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from peft_core.backbones import load_backbone, meta_backbone, model_info
from peft_core.backbones._backbone import TransformerBackbone
from peft_core.backbones._generic import generic_family
from peft_core.methods import get_method, list_methods, resolve
from peft_core.methods._surgery import weight_at
from peft_core.records import InputError, MethodSpec
from peft_core.tasks.rank_probe import teacher
from tests.backbones.test_problems import batch_of, plain_greedy, prompts, save_tokenizer
from tests.conftest import batch_for
from tests.methods.test_contract import attach, take_steps
from tests.miniatures import ENCODER, TEXT

NEOX = {"model_type": "gpt_neox", **ENCODER, **TEXT, "pad_token_id": 0, "eos_token_id": 3}
MAMBA = {"model_type": "mamba", "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
MBART = {
    "model_type": "mbart", **TEXT, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_start_token_id": 2,
}  # fmt: skip


def generic(values: dict, problem: str = "classification") -> TransformerBackbone:
    values = dict(values)
    kind = values.pop("model_type")
    family = generic_family(kind)
    config = transformers.AutoConfig.for_model(
        kind, **values, num_labels=2 if problem == "span" else 3, use_cache=False
    )
    torch.manual_seed(0)
    model = getattr(transformers, family.task(problem).auto_model).from_config(config)
    return TransformerBackbone(f"mini-{kind}", family, model, outputs=3, problem=problem)


@pytest.fixture
def neox_folder(tmp_path: Path) -> Path:
    generic(NEOX, "generation").model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    return tmp_path


def test_all_linear_maps_of_the_layers_are_sites_and_the_default():
    backbone = generic(NEOX)
    maps = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    assert [site.module for site in backbone.sites()] == [
        f"gpt_neox.layers.{i}.{name}" for i in (0, 1) for name in maps
    ]
    assert {site.role for site in backbone.sites()} == {"other"} and backbone.sites() == backbone.sites(
        "all-linear"
    ) == backbone.sites("six")
    assert [site.layer for site in backbone.sites()] == [0] * 4 + [1] * 4
    assert (backbone.layers, backbone.hidden_size, backbone.head_parameters()) == (2, 32, ("score.weight",))


def test_a_map_that_the_model_never_runs_is_no_site():
    """Mamba takes the weight of dt_proj by itself, so an update hooked to the module would do nothing."""
    names = {site.module.rpartition(".")[2] for site in generic(MAMBA, "generation").sites()}
    assert names == {"in_proj", "x_proj", "out_proj"}


def trained(values: dict, method_id: str):
    attached = attach(generic(values), method_id, seed=7)
    take_steps(attached, 12 if attached.counts_at_target else 3, rate=2e-2)  # what grows must have ended growing
    attached.train(False)
    with torch.no_grad(), attached.active():
        return attached, attached.backbone.logits(batch_for(attached.backbone))


def test_low_rank_methods_train_store_and_merge_and_the_others_say_why_not():
    for method in list_methods():
        if method.family not in ("low-rank", "baseline"):
            with pytest.raises(InputError, match="method is"):
                attach(generic(NEOX), method.id)
            continue
        attached, expected = trained(NEOX, method.id)
        again = attach(generic(NEOX), method.id, seed=7)
        again.load_stored(attached.stored(), attached.stored_head())
        again.train(False)
        with torch.no_grad(), again.active():
            assert torch.equal(again.backbone.logits(batch_for(again.backbone)), expected), method.id
        if not method.mergeable:
            continue
        merged = generic(NEOX)
        sites = {site.name: site for site in merged.sites()}
        with torch.no_grad():
            for name, parameter in (attached.overrides | attached.head).items():
                merged.model.get_parameter(name).copy_(parameter)
            for update in () if attached.overrides else attached.updates():
                site = sites[update.site]
                weight = merged.model.get_parameter(f"{site.module}.weight")
                weight_at(site, weight).add_(update.left @ update.right)
            answers = merged.logits(batch_for(merged))
        torch.testing.assert_close(answers, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["lora:sites=qv", "increlora:sites=qv", "propetl_lora:sites=qkvo"])
def test_roles_are_not_known(method):
    spec = MethodSpec.parse(method)
    with pytest.raises(InputError, match="knows six and all-linear alone") as refused:
        get_method(spec.id).attach(generic(NEOX), resolve(spec), torch.Generator())
    assert refused.value.field == "sites"


def test_a_rank_probe_has_nowhere_to_hide_its_update():
    with pytest.raises(InputError, match="no known query and value maps"), teacher(generic(NEOX), 0, {}):
        pass


@torch.no_grad()
@pytest.mark.parametrize("values", [NEOX, MBART], ids=["gpt_neox", "mbart"])
def test_a_generic_model_writes_and_finds_spans(values):
    backbone = generic(values, "generation")
    rows = prompts(backbone)
    assert backbone.generate(batch_of(backbone, rows), 6) == [plain_greedy(backbone, row, 6) for row in rows]
    assert backbone.head_parameters() == ()
    spans = generic(values, "span")
    assert set(spans.head_parameters()) == {"qa_outputs.weight", "qa_outputs.bias"}
    assert spans.logits(batch_for(spans)).shape == (6, 9, 2)
    assert spans.parameter_count() == backbone.parameter_count()


def test_a_folder_loads_for_what_transformers_can_do_with_it(neox_folder: Path):
    info = model_info(str(neox_folder))
    assert (info.architecture, info.parameters, info.available, info.max_length) == ("gpt_neox", None, True, 40)
    backbone = load_backbone(str(neox_folder), outputs=4, problem="classification")
    assert backbone.model.get_parameter("score.weight").shape == (4, 32)
    same = load_backbone(str(neox_folder), problem="generation")
    for name in backbone.body_parameters():
        assert torch.equal(backbone.model.get_parameter(name), same.model.get_parameter(name))
    shapes = meta_backbone(str(neox_folder), outputs=4)
    assert shapes.sites() == backbone.sites() and shapes.parameter_count() == backbone.parameter_count()
    config = json.loads((neox_folder / "config.json").read_text())
    (neox_folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))
    with pytest.raises(InputError, match="do not fit its config"):
        load_backbone(str(neox_folder), problem="generation")


@pytest.mark.parametrize(
    ("kind", "problem", "able"),
    [("mamba", "classification", "generation"), ("camembert", "generation", "classification, regression, span")],
)
def test_what_transformers_has_no_class_for_is_refused(kind, problem, able, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(InputError, match=f"a {kind} model cannot do {problem}, only {able}[.]$"):
        meta_backbone(str(tmp_path), problem=problem)
