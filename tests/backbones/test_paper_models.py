"""The papers' backbones on the meta device: sizes, sites, places and heads."""

import pytest
import torch

from peft_core.backbones import list_models, meta_backbone, model_info
from peft_core.records import Backbone

PAPERS = ("roberta-base", "deberta-v3-base", "vit-b16", "gpt2", "t5-base", "t5-3b")
SIZES = dict(zip(PAPERS, (124_055_040, 183_831_552, 85_798_656, 124_439_808, 222_903_552, 2_851_598_336), strict=True))


def total(backbone: Backbone, names: tuple[str, ...]) -> int:
    return sum(backbone.model.get_parameter(name).numel() for name in names)


@pytest.fixture(scope="module", params=PAPERS)
def paper(request: pytest.FixtureRequest) -> Backbone:
    return meta_backbone(request.param)


def test_sizes_are_exact_and_nothing_is_allocated(paper: Backbone) -> None:
    assert paper.parameter_count() == SIZES[paper.id] == model_info(paper.id).parameters
    assert all(parameter.device.type == "meta" for parameter in paper.model.parameters())


@pytest.mark.parametrize(
    ("model", "layers", "qv", "six", "pfeiffer", "houlsby", "default"),
    [
        ("roberta-base", 12, 24, 72, 12, 24, "qv"),
        ("deberta-v3-base", 12, 24, 72, 12, 24, "six"),
        ("vit-b16", 12, 24, 72, 12, 24, "qv"),
        ("gpt2", 12, 24, 48, 12, 24, "qv"),
        ("t5-base", 24, 72, 192, 24, 48, "qv"),
        ("t5-3b", 48, 144, 384, 48, 96, "qv"),
    ],
)
def test_counts_of_sites_and_places(
    model: str, layers: int, qv: int, six: int, pfeiffer: int, houlsby: int, default: str
) -> None:
    backbone = meta_backbone(model)
    assert (backbone.layers, len(backbone.sites("qv")), len(backbone.sites("six"))) == (layers, qv, six)
    assert (len(backbone.adapter_places("pfeiffer")), len(backbone.adapter_places("houlsby"))) == (pfeiffer, houlsby)
    assert backbone.default_sites == default
    assert backbone.sites() == backbone.sites(backbone.default_sites)


def test_names_of_sites_and_places_are_unique_and_layers_are_numbered_through(paper: Backbone) -> None:
    places = (paper.adapter_places("houlsby"), paper.adapter_places("pfeiffer"), paper.prefix_places())
    for entries in (paper.sites("all-linear"), *places):
        names = [entry.name for entry in entries]
        assert len(set(names)) == len(names)
        assert {entry.layer for entry in entries} == set(range(paper.layers))


def test_head_and_body_split_the_parameters(paper: Backbone) -> None:
    names = {name for name, _ in paper.model.named_parameters()}
    head, body = set(paper.head_parameters()), set(paper.body_parameters())
    assert head | body == names and not head & body
    assert set(paper.bias_parameters()) <= body
    expected = {"roberta-base": 592_130, "deberta-v3-base": 592_130, "vit-b16": 1538, "gpt2": 1536}
    assert total(paper, paper.head_parameters()) == expected.get(paper.id, 0)


def test_bitfit_on_deberta_trains_102912_values() -> None:
    backbone = meta_backbone("deberta-v3-base")
    assert total(backbone, backbone.bias_parameters()) == 102_912


def test_gpt2_fused_projection_is_three_sites_of_one_module() -> None:
    sites = meta_backbone("gpt2").sites("qkvo")[:4]
    assert [(site.role, site.offset) for site in sites] == [("q", 0), ("k", 768), ("v", 1536), ("o", 0)]
    assert len({site.module for site in sites[:3]}) == 1
    assert all((site.in_features, site.out_features, site.transposed) == (768, 768, True) for site in sites)


def test_gpt2_counts_its_fused_projection_once_among_the_six() -> None:
    """METHODS.md, Sites: c_attn, attn c_proj, c_fc, mlp c_proj."""
    backbone = meta_backbone("gpt2")
    assert backbone.sites("six") == backbone.sites("all-linear")
    shapes = [(site.role, site.in_features, site.out_features, site.offset) for site in backbone.sites("six")[:4]]
    assert shapes == [("qkv", 768, 2304, 0), ("o", 768, 768, 0), ("ffn_in", 768, 3072, 0), ("ffn_out", 3072, 768, 0)]


def test_t5_cross_attention_has_sites_of_its_own() -> None:
    backbone = meta_backbone("t5-3b")
    cross = [site for site in backbone.sites("qkvo") if ".cross_" in site.name]
    assert len(cross) == 4 * 24
    assert {(site.in_features, site.out_features) for site in cross} == {(1024, 4096), (4096, 1024)}


def test_the_head_has_the_width_asked_for() -> None:
    backbone = meta_backbone("vit-b16", outputs=100)
    assert backbone.model.get_parameter("classifier.weight").shape == torch.Size([100, 768])


def test_all_papers_are_listed_without_weights(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    listed = {model.id: model for model in list_models() if model.origin == "paper"}
    assert tuple(listed) == PAPERS
    assert not any(model.available for model in listed.values())
    assert listed["gpt2"].max_length == 1024 and listed["roberta-base"].max_length == 512
