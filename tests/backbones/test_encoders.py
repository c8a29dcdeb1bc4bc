"""What single encoders have of their own: shared layers, fused maps, norms in the head, files of a pre-training."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
import transformers

from peft_core.backbones import initial_head, load_backbone, meta_backbone, model_info
from peft_core.budget import budget
from peft_core.methods import get_method, resolve
from peft_core.records import InputError, MethodSpec
from tests.miniatures import MINIATURES

PRETRAINED = {
    "bert": "AutoModelForPreTraining",
    "xlm_roberta": "AutoModelForMaskedLM",
    "distilbert": "AutoModelForMaskedLM",
    "electra": "AutoModelForPreTraining",
    "albert": "AutoModelForPreTraining",
    "modernbert": "AutoModelForMaskedLM",
}


def config_of(name: str):
    values = dict(MINIATURES[name])
    return transformers.AutoConfig.for_model(values.pop("model_type"), **values)


@pytest.mark.parametrize("name", PRETRAINED)
def test_files_of_a_pretraining_give_the_body_for_every_problem(name, tmp_path, save_tokenizer):
    torch.manual_seed(0)
    saved = getattr(transformers, PRETRAINED[name]).from_config(config_of(name))
    saved.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    body = dict(saved.base_model.named_parameters())
    for problem, outputs in (("classification", 3), ("span", 2)):
        backbone = load_backbone(str(tmp_path), outputs=outputs, problem=problem)
        head = initial_head(backbone, 0)
        for key in backbone.body_parameters():
            assert torch.equal(
                backbone.model.get_parameter(key), body[key.removeprefix(f"{backbone.architecture.body}.")]
            )
        assert all(torch.equal(backbone.model.get_parameter(key), value) for key, value in head.items())
        assert all((value == 1).all() for key, value in head.items() if "norm" in key)
        info = model_info(str(tmp_path))
        assert info.parameters == backbone.parameter_count()
        assert info.max_length == backbone.max_length == (38 if name == "xlm_roberta" else 40)
        tokens = backbone.processor(["w1 w2 w3", "w4"], padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = backbone.logits(dict(tokens))
            typed = backbone.logits(dict(tokens) | {"token_type_ids": torch.zeros_like(tokens["input_ids"])})
        assert logits.shape[-1] == outputs and logits.shape[0] == 2
        assert torch.equal(typed, logits), "BERT's tokenizer gives types to models that have none"


def test_a_distilled_image_model_gets_one_head_on_the_class_token(tmp_path):
    torch.manual_seed(0)
    transformers.DeiTForImageClassificationWithTeacher(config_of("deit")).save_pretrained(tmp_path)
    transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [
        "DeiTForImageClassificationWithTeacher"
    ]
    backbone = load_backbone(str(tmp_path), outputs=3, problem="classification")
    assert backbone.head_parameters() == ("classifier.weight", "classifier.bias")
    assert model_info(str(tmp_path)).parameters == backbone.parameter_count()
    assert meta_backbone(str(tmp_path)).parameter_count() == backbone.parameter_count()


def albert_folder(folder, **changes):
    config = config_of("albert")
    for field, value in changes.items():
        setattr(config, field, value)
    config.save_pretrained(folder)
    return str(folder)


def test_shared_layers_count_once_and_cost_in_every_use(build, batch_for, tmp_path):
    """Four layers in two groups. Oracle for FLOPs: how often the adapted maps really run."""
    backbone = build("albert")
    uses = Counter()
    for site in backbone.sites("six"):
        module = backbone.model.get_submodule(site.module)
        module.register_forward_hook(lambda module, args, output, name=site.name: uses.update([name]))
    with torch.no_grad():
        backbone.logits(batch_for(backbone))
    entry = budget(albert_folder(tmp_path), [MethodSpec.parse("lora:rank=3,sites=six")])[0]
    assert (backbone.layers, backbone.passes, len(backbone.sites("six"))) == (2, 2.0, 12)
    sizes = {site.name: site.in_features + site.out_features for site in backbone.sites("six")}
    assert entry["trainable"] == sum(3 * size for size in sizes.values())
    assert entry["adapter_flops_executed"] == sum(2 * 3 * sizes[name] * count for name, count in uses.items())
    assert entry["adapter_flops_nominal"] == entry["adapter_flops_executed"]
    plain = budget(str(tmp_path), [MethodSpec.parse("lora:rank=3")])[0]
    assert plain["flops_vs_lora"] == 1


@pytest.mark.parametrize("method", ["lora:rank=2", "adapter_houlsby:bottleneck=2", "adapter_pfeiffer:bottleneck=2"])
def test_what_sits_in_a_shared_layer_works_in_every_use(build, batch_for, method):
    backbone, spec, uses = build("albert"), MethodSpec.parse(method), Counter()
    attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(0))
    for name, module in attached.modules.items():
        module.register_forward_hook(lambda module, args, output, name=name: uses.update([name]))
    with torch.no_grad(), attached.active():
        backbone.logits(batch_for(backbone))
    assert uses and uses == dict.fromkeys(attached.modules, 2)


def test_layers_within_a_group_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="its inner_group_num is 2; only 1 is supported") as refused:
        model_info(albert_folder(tmp_path, inner_group_num=2))
    assert refused.value.field == "model"


@torch.no_grad()
@pytest.mark.parametrize("role", ["q", "k"])
def test_the_table_of_positions_of_deberta_goes_through_the_updated_maps(build, batch_for, role):
    """An update that skips the second use, of the position table, is another function than one of the weight."""
    backbone = build("deberta_v2")
    site = next(site for site in backbone.sites("qkvo") if site.role == role)
    module = backbone.model.get_submodule(site.module)
    for parameter in backbone.model.parameters():
        parameter *= 5 if parameter.dim() > 1 else 1
    delta = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    calls = []

    def content_alone(module, args, output):
        calls.append(tuple(args[0].shape))
        return output + args[0] @ delta.T if len(calls) == 1 else output

    batch = batch_for(backbone)
    answers = []
    for update in (content_alone, lambda module, args, output: output + args[0] @ delta.T):
        handle = module.register_forward_hook(update)
        answers.append(backbone.logits(batch))
        handle.remove()
    table = backbone.body.encoder.get_rel_embedding()
    assert calls == [(3, 6, 32), (1, *table.shape)], "first the tokens, then the table"
    module.weight += delta
    merged = backbone.logits(batch)
    torch.testing.assert_close(merged, answers[1], rtol=1e-4, atol=1e-5)
    assert (merged - answers[0]).abs().max() > 1e-3
