"""`inspect`: ranks of adapters that PEFT itself wrote, smaller ones of them, and folders that nobody should trust."""

from __future__ import annotations

import json
import shutil
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from peft_core.cli import main
from peft_core.export.compress import compress_folder
from peft_core.export.rank_report import inspect_folder
from peft_core.records import InputError
from tests.conftest import batch_for, miniature

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def made_by_peft(folder, family="roberta", decay=0.5, **options):
    """An adapter of PEFT's own with updates of falling spectra. Returns its model, and by module its dense update."""
    torch.manual_seed(0)
    config = peft.LoraConfig(**{"r": 6, "lora_alpha": 12, "target_modules": ["query", "value"]} | options)
    model = peft.get_peft_model(miniature(family).model, config)
    deltas = {}
    with torch.no_grad():
        for name, module in model.base_model.model.named_modules():
            if options.get("lora_bias") and hasattr(module, "lora_B"):
                module.lora_B["default"].bias.normal_()
            if hasattr(module, "lora_A") and (module.lora_A or module.lora_embedding_A):
                b = module.lora_B["default"].weight if module.lora_A else module.lora_embedding_B["default"]
                if not module.lora_A:
                    module.lora_embedding_A["default"].normal_()
                b.normal_().mul_(decay ** torch.arange(b.shape[1]).view(1, -1, *[1] * (b.dim() - 2)))
                deltas[name] = module.get_delta_weight("default")
    model.save_pretrained(folder)
    return model.eval(), deltas


KINDS = {
    "plain": {},
    "patterns": {
        "rank_pattern": {"query": 3},
        "alpha_pattern": {"value": 5, r"^roberta\.encoder\.layer\.1\..*query": 7},
    },
    "first pattern that fits": {
        "alpha_pattern": {".*1.*value": 2, "query": 3, "roberta.encoder.layer.0.attention.self.query": 50, "value": 9}
    },
    "rslora": {"use_rslora": True, "rank_pattern": {"layer.0.attention.self.query": 2}},
    "embedding": {"target_modules": ["word_embeddings", "query"]},
    "biases of B": {"lora_bias": True, "lora_alpha": 30},
    "head": {"task_type": "SEQ_CLS", "bias": "lora_only"},
    "all biases": {"task_type": "SEQ_CLS", "bias": "all", "modules_to_save": ["LayerNorm"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_is_that_of_the_dense_updates(kind, tmp_path):
    _, deltas = made_by_peft(tmp_path / "a", **KINDS[kind])
    report = inspect_folder(tmp_path / "a").described()
    assert {layer["site"] for layer in report["layers"]} == set(deltas)
    for layer in report["layers"]:
        dense = deltas[layer["site"]].double()
        values = torch.linalg.svdvals(dense)
        count = layer["numerical"]
        assert layer["inner"] == count == int((values > 1e-6 * values[0]).sum())
        assert layer["norm"] == pytest.approx(float(dense.norm()), rel=1e-5)
        assert layer["spectrum"] == pytest.approx(values[: layer["inner"]].tolist(), rel=1e-4, abs=1e-7)
        share = values.square().cumsum(0) / values.square().sum()
        at = layer["rank_at_energy"]
        assert share[at - 1] >= 0.99 - 1e-6 and (at == 1 or share[at - 2] < 0.99)
        assert sorted(layer["shape"]) == sorted(dense.shape)
        assert layer["parameters"] == layer["inner"] * sum(layer["shape"])


def test_a_convolution_is_read_as_the_map_of_its_unrolled_input(tmp_path):
    _, deltas = made_by_peft(tmp_path / "a", "vit", target_modules=["projection", "q_proj"])
    layers = {layer["site"]: layer for layer in inspect_folder(tmp_path / "a").described()["layers"]}
    for site, delta in deltas.items():
        values = torch.linalg.svdvals(delta.double().flatten(1))
        assert layers[site]["spectrum"] == pytest.approx(values[:6].tolist(), rel=1e-4)
    compress_folder(tmp_path / "a", 0.99, tmp_path / "b")
    for name, value in load_file(tmp_path / "b" / WEIGHTS).items():
        assert value.dim() == load_file(tmp_path / "a" / WEIGHTS)[name].dim()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("energy", [0.9, 1.0])
def test_a_smaller_adapter_is_as_near_as_its_energy_says(kind, energy, tmp_path):
    model, deltas = made_by_peft(tmp_path / "a", **KINDS[kind])
    compress_folder(tmp_path / "a", energy, tmp_path / "b")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        again = peft.PeftModel.from_pretrained(miniature("roberta").model, tmp_path / "b").eval()
    held = peft.get_peft_model_state_dict(again, save_embedding_layers=False)
    assert load_file(tmp_path / "b" / WEIGHTS).keys() == {name for name in held if "word_embeddings.weight" not in name}
    for name, delta in deltas.items():
        near = again.base_model.model.get_submodule(name).get_delta_weight("default")
        assert (near - delta).norm() <= ((1 - energy) ** 0.5 + 1e-5) * delta.norm()
    if energy == 1.0:
        batch = batch_for(miniature("roberta"))
        torch.testing.assert_close(again(**batch).logits, model(**batch).logits, rtol=0, atol=1e-5)
    else:
        before, after = (inspect_folder(tmp_path / name).described()["total"] for name in "ab")
        assert (
            after["parameters"] == inspect_folder(tmp_path / "a", energy).described()["total"]["parameters_at_energy"]
        )
        assert after["parameters"] < before["parameters"]


def test_zero_updates_go_and_one_stays_where_all_are_zero(tmp_path):
    made_by_peft(tmp_path / "a", target_modules=["query"])
    tensors = load_file(tmp_path / "a" / WEIGHTS)
    first = next(name for name in tensors if "layer.0" in name and "lora_B" in name)
    for zeroed, left in (([first], 1), ([name for name in tensors if "lora_B" in name], 1)):
        changed = {name: torch.zeros_like(value) if name in zeroed else value for name, value in tensors.items()}
        save_file(changed, tmp_path / "a" / WEIGHTS)
        report = inspect_folder(tmp_path / "a").described()
        assert [layer["numerical"] == 0 for layer in report["layers"]].count(True) == len(zeroed)
        compress_folder(tmp_path / "a", 0.99, tmp_path / "b")
        assert len(json.loads((tmp_path / "b" / CONFIG).read_text())["target_modules"]) == left
        shutil.rmtree(tmp_path / "b")


def test_the_command_prints_and_writes(tmp_path, capsys):
    made_by_peft(tmp_path / "a")
    assert main(["inspect", str(tmp_path / "a"), "--compress", "0.95", "--to", str(tmp_path / "b"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["energy"] == 0.95 and report["total"]["share_at_energy"] < 1
    assert report["compressed"]["bytes"] == (tmp_path / "b" / WEIGHTS).stat().st_size < report["total"]["bytes"]
    assert main(["inspect", str(tmp_path / "b")]) == 0
    said = capsys.readouterr()
    assert "layer.1.attention.self.value" in said.out and "effective" in said.out
    for arguments, field in (
        (["--compress", "0.9"], "to is"),
        (["--to", str(tmp_path / "c")], "to is"),
        (["--compress", "0", "--to", str(tmp_path / "c")], "compress is"),
        (["--compress", "most", "--to", str(tmp_path / "c")], "compress is"),
        (["--compress", "0.9", "--to", str(tmp_path / "b")], "to is"),
    ):
        assert main(["inspect", str(tmp_path / "a"), *arguments]) == 2
        assert capsys.readouterr().err.startswith(field)
    assert not (tmp_path / "c").exists()


@pytest.fixture
def folder(tmp_path):
    made_by_peft(tmp_path / "a")
    return tmp_path / "a"


def put(folder, **values):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | values))


def rename(folder, change):
    save_file({change(name): value for name, value in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)


def cut_file(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def huge_header(folder):
    (folder / WEIGHTS).write_bytes((2**62).to_bytes(8, "little") + b"{}")


def huge_file(folder):
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(20 * 2**30)  # takes no room on the disk


def pickled(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def sharded(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model-00001-of-00001.safetensors")


def not_a_number(folder):
    tensors = load_file(folder / WEIGHTS)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, folder / WEIGHTS)


def not_finite(folder):
    tensors = load_file(folder / WEIGHTS)
    next(iter(tensors.values()))[0, 0] = float("inf")
    save_file(tensors, folder / WEIGHTS)


def lone_factor(folder):
    tensors = load_file(folder / WEIGHTS)
    del tensors[next(iter(tensors))]
    save_file(tensors, folder / WEIGHTS)


def wrong_shapes(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file({name: value[:2].contiguous() for name, value in tensors.items()}, folder / WEIGHTS)


BROKEN = {
    "missing folder": (shutil.rmtree, "must be a folder"),
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), "must hold adapter_config.json"),
    "no JSON": (lambda folder: (folder / CONFIG).write_text("{"), "must be JSON"),
    "deep JSON": (lambda folder: (folder / CONFIG).write_text("[" * 100_000), "must be JSON"),
    "a list": (lambda folder: (folder / CONFIG).write_text("[]"), "JSON object"),
    "large JSON": (lambda folder: (folder / CONFIG).write_text(" " * 11_000_000), "11,000,000 bytes"),
    "another kind": (lambda folder: put(folder, peft_type="IA3"), "only LORA"),
    "DoRA": (lambda folder: put(folder, use_dora=True), "DoRA"),
    "DoRA by its tensors": (
        lambda folder: rename(folder, lambda name: name.replace("lora_A.weight", "lora_magnitude_vector")),
        "DoRA",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "is missing"),
    "pickled": (pickled, "are pickled"),
    "truncated": (cut_file, "is damaged"),
    "empty": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "is damaged"),
    "huge header": (huge_header, "is damaged"),
    "huge": (huge_file, "at most"),
    "not finite": (not_finite, "not finite"),
    "not a number": (not_a_number, "not finite"),
    "sharded": (sharded, "in several files"),
    "lone factor": (lone_factor, "only one of its two factors"),
    "wrong shapes": (wrong_shapes, "do not fit"),
    "no factors": (lambda folder: rename(folder, lambda name: name.replace("lora", "other")), "no factors"),
    "alpha that is no number": (lambda folder: put(folder, lora_alpha="16"), "finite numbers"),
    "an expression that never ends": (lambda folder: put(folder, alpha_pattern={"(a+)+$": 1}), "expression"),
    "a pattern that is none": (lambda folder: put(folder, alpha_pattern=["query"]), "must be an object"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_folder_that_cannot_be_read_is_one_sentence(kind, folder, tmp_path, capsys):
    spoil, words = BROKEN[kind]
    spoil(folder)
    assert main(["inspect", str(folder), "--compress", "0.9", "--to", str(tmp_path / "b"), "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("adapter is"), said.err
    assert words in said.err and not (tmp_path / "b").exists()


def test_an_adapter_whose_loading_changes_the_base_has_a_report_that_says_so_and_is_not_cut(folder, tmp_path, capsys):
    assert inspect_folder(folder).described()["note"] is None
    put(folder, init_lora_weights="pissa_niter_4")
    assert inspect_folder(folder).layers
    assert main(["inspect", str(folder)]) == 0
    assert "the ranks of its factors, not of its update" in capsys.readouterr().err
    with pytest.raises(InputError, match="changes the base weights"):
        compress_folder(folder, 0.9, tmp_path / "b")


# --- native folders ---


def test_a_native_folder_has_the_report_of_its_peft_form(store, tmp_path):
    run = store.runs["capaboost_lora:rank=8", 1]
    for kind in ("native", "peft"):
        assert main(["export", run, "--format", kind, "--to", str(tmp_path / kind)]) == 0
    native, other = (inspect_folder(tmp_path / kind).described() for kind in ("native", "peft"))
    assert native["kind"] == "capaboost_lora" and native["base_model"] == other["base_model"] == "tiny-text"
    for ours, theirs in zip(native["layers"], other["layers"], strict=True):
        assert ours["numerical"] == theirs["numerical"] == 16
        assert ours["spectrum"] == pytest.approx(theirs["spectrum"], rel=1e-5)
        assert ours["parameters"] < 0.76 * theirs["parameters"] / 2
    compress_folder(tmp_path / "native", 0.9, tmp_path / "small")
    small = inspect_folder(tmp_path / "small").described()
    wanted = inspect_folder(tmp_path / "native", 0.9).described()
    assert [layer["inner"] for layer in small["layers"]] == [layer["rank_at_energy"] for layer in wanted["layers"]]
    assert small["total"]["other_parameters"] == native["total"]["other_parameters"]


def test_full_fine_tuning_has_a_report_and_adapters_have_none(store, tmp_path):
    for key in (("full", 0), ("adapter_pfeiffer:bottleneck=4", 0)):
        assert main(["export", store.runs[key], "--format", "native", "--to", str(tmp_path / key[0][:4])]) == 0
    assert all(layer["inner"] is None for layer in inspect_folder(tmp_path / "full").described()["layers"])
    with pytest.raises(InputError, match="no update of weights"):
        inspect_folder(tmp_path / "adap")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: flip(folder / "adapter.safetensors"), "checksum"),
        (lambda folder: (folder / "head.safetensors").unlink(), "is missing"),
        (lambda folder: rewrite(folder, version=99), "newer than"),
        (lambda folder: rewrite(folder, format="other"), "not that of an exported adapter"),
        (lambda folder: rewrite(folder, recipe={}), "adapter.recipe"),
        (lambda folder: rewrite(folder, masks=99), "generator version"),
        (lambda folder: (folder / "adapter.json").write_text("nothing"), "must be JSON"),
    ],
)
def test_a_native_folder_that_is_damaged_is_one_sentence(store, tmp_path, capsys, spoil, words):
    folder = tmp_path / "native"
    assert main(["export", store.runs["lora:rank=8", 0], "--format", "native", "--to", str(folder)]) == 0
    spoil(folder)
    capsys.readouterr()
    assert main(["inspect", str(folder)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1, said


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def rewrite(folder, **values):
    described = json.loads((folder / "adapter.json").read_text())
    (folder / "adapter.json").write_text(json.dumps(described | values))
