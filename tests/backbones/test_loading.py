"""Loading from folders: the same body, a fresh head, one sentence for everything that cannot be loaded."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from peft_core.backbones import initial_head, list_models, load_backbone, meta_backbone, model_info
from peft_core.records import InputError


def test_listing_models_imports_neither_torch_nor_transformers() -> None:
    code = "import sys; from peft_core.backbones import list_models; list_models(); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'torch'" not in done.stdout and "'transformers'" not in done.stdout


AT_ONCE = """
import threading
from peft_core.backbones import meta_backbone
start, built = threading.Barrier(4), []
def build(model):
    start.wait()
    built.append(meta_backbone(model).id)
threads = [threading.Thread(target=build, args=(model,)) for model in ("tiny-text", "tiny-decoder") * 2]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(built))
"""


def test_threads_that_need_transformers_at_once_all_get_it() -> None:
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["tiny-decoder"] * 2 + ["tiny-text"] * 2), done.stderr


def test_a_folder_gives_its_body_in_float32_and_a_fresh_head(vit_folder: Path) -> None:
    backbone = load_backbone(str(vit_folder), outputs=3, problem="classification")
    saved = transformers.AutoModelForImageClassification.from_pretrained(vit_folder, dtype=torch.float32)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    pixels = backbone.processor(images)
    assert pixels.shape == (4, 3, 16, 16) and pixels.dtype == torch.float32
    with torch.no_grad():
        expected = saved.vit(pixels).last_hidden_state[:, 0]
        assert torch.equal(backbone.features({"pixel_values": pixels}), expected)
        assert backbone.logits({"pixel_values": pixels}).shape == (4, 3)
    for name, value in initial_head(backbone, 0).items():
        assert torch.equal(backbone.model.get_parameter(name), value)


def test_a_pretrained_language_model_gets_a_head_and_a_tokenizer(roberta_folder: Path) -> None:
    backbone = load_backbone(str(roberta_folder), outputs=1, problem="regression")
    encoded = backbone.processor(["w1 w2", "w3"], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert backbone.logits(dict(encoded)).shape == (2, 1)
    assert backbone.max_length == 38
    assert backbone.model.config._attn_implementation == "sdpa"


def test_the_listed_size_comes_from_the_file_and_is_the_models(roberta_folder: Path) -> None:
    info = model_info(str(roberta_folder))
    assert info.parameters == meta_backbone(str(roberta_folder)).parameter_count()
    assert (info.origin, info.available, info.architecture, info.max_length) == ("local", True, "roberta", 38)


def test_loading_leaves_the_global_generator_alone(vit_folder: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    load_backbone(str(vit_folder), outputs=3, problem="classification")
    assert torch.equal(torch.rand(3), expected)


def test_initial_heads_depend_on_seed_and_name_alone(vit_folder: Path) -> None:
    backbone = load_backbone(str(vit_folder), outputs=200, problem="classification")
    first, second = initial_head(backbone, 1), initial_head(backbone, 2)
    torch.rand(5)
    again = initial_head(backbone, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])
    assert not first["classifier.bias"].any()
    # 3,200 draws: the standard error of their deviation is 0.02 / sqrt(6400) = 0.00025
    assert first["classifier.weight"].std().item() == pytest.approx(0.02, abs=0.001)


def test_tensors_of_a_head_draw_from_streams_of_their_own(roberta_folder: Path) -> None:
    head = initial_head(meta_backbone(str(roberta_folder), outputs=32), 0)
    assert head["classifier.dense.weight"].shape == head["classifier.out_proj.weight"].shape
    assert not torch.equal(head["classifier.dense.weight"], head["classifier.out_proj.weight"])


def test_loading_says_nothing(vit_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_backbone(str(vit_folder), outputs=3, problem="classification")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("nonsense", "embedded models are tiny-decoder"),
        ("gpt2", "openai-community/gpt2 is not in the cache"),
        ("someone/some-model", "is not in the cache"),
        ("../models", "no such folder"),
        ("~no-such-user/model", "no such folder"),
        ("x" * 400, "no such folder"),
        ("a\0b", "cannot be seen"),
    ],
)
def test_models_that_are_not_at_hand(model: str, part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        load_backbone(model, outputs=2, problem="classification")
    assert caught.value.field == "model" and str(caught.value).count("\n") == 0


def test_broken_folders_are_explained(vit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    config = json.loads((vit_folder / "config.json").read_text())
    weights = vit_folder / "model.safetensors"

    def refusal() -> str:
        with pytest.raises(InputError) as caught:
            load_backbone(str(vit_folder), outputs=2, problem="classification")
        return caught.value.allowed

    def write(**changes: object) -> None:
        (vit_folder / "config.json").write_text(json.dumps(config | changes))

    write(model_type="no-such-architecture")
    assert "'no-such-architecture' is not supported" in refusal()
    write(hidden_size="many")
    assert "its config.json cannot be used" in refusal()
    write(intermediate_size=48)
    assert "do not fit its config.json" in refusal()
    write(num_hidden_layers=3)
    assert "vit.layers.2" in refusal()
    write()
    weights.write_bytes(weights.read_bytes()[:500])
    assert "weights cannot be read" in refusal()
    weights.unlink()
    assert "no safetensors" in refusal()
    (vit_folder / "preprocessor_config.json").unlink()
    assert "no image processor" in refusal()
    (vit_folder / "config.json").write_text("[")
    assert "config.json cannot be read" in refusal()
    assert str(tmp_path_factory.mktemp("empty")) not in {model.id for model in list_models()}


def test_a_folder_without_config_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        model_info(str(tmp_path))


@pytest.mark.parametrize(
    "info", [model for model in list_models() if model.origin == "embedded"], ids=lambda info: info.id
)
def test_embedded_models_load(info) -> None:
    backbone = load_backbone(info.id, outputs=2, problem="classification", labels=("no", "yes"))
    assert backbone.parameter_count() == info.parameters == meta_backbone(info.id).parameter_count()
    assert (backbone.hidden_size, backbone.layers) == (128, 6 if info.id == "tiny-seq2seq" else 4)
