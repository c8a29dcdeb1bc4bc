"""The public Python calls: they do what the command line does, and their examples run."""

from __future__ import annotations

import copy
import doctest
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import peft_core
from peft_core import methods
from peft_core.export.importing import read_adapter
from peft_core.methods import Method, get_method, list_methods, register
from peft_core.records import InputError, RunFailure

ROOT = Path(__file__).parents[1]
MODULES = (
    "peft_core",
    *(f"peft_core.api.{name}" for name in ("_compare", "_loading", "_model", "_own_module", "_training", "_use")),
)
SHORT = {"steps": 4, "batch_size": 8, "train_rows": 32, "eval_rows": 16}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings_run(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed


def test_importing_the_package_loads_nothing_and_every_call_is_there():
    code = (
        "import sys, peft_core; print('torch' in sys.modules, 'pydantic' in sys.modules);"
        "import peft_core.export.names; import peft_core.cli; peft_core.cli.build_parser();"
        "print('torch' in sys.modules);"
        "print(all(callable(getattr(peft_core, name)) for name in peft_core.__all__[1:]));"
        "print(peft_core.export.__name__, peft_core.load.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "False", "False", "True", "peft_core.export", "load"], done.stderr
    assert (ROOT / "peft_core" / "py.typed").is_file()
    with pytest.raises(AttributeError):
        _ = peft_core.nothing


@pytest.fixture(scope="module")
def model():
    return peft_core.load("tiny-text", task="acceptability", device="cpu")


def test_train_is_what_a_comparison_runs_and_a_stored_run_scores_again(model, tmp_path, monkeypatch):
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path))
    labels, heard = ["lora:rank=4", "capaboost_lora:rank=2,d=2"], []
    results = peft_core.compare(
        "tiny-text", "acceptability", labels, seeds=[3], plan="apart", on_event=heard.append, **SHORT
    )
    tuned = peft_core.attach(model, labels[0], seed=3)
    records = peft_core.train(tuned, **SHORT)
    last = [record for record in records if record.event == "eval"][-1]
    run = results.runs[labels[0], 3]
    (stored,) = [row for row in results.document["runs"] if row["run"] == run]
    assert stored["score"] == last.scores == peft_core.evaluate(tuned)
    assert [event["loss"] for event in heard if event["event"] == "step" and event["run"] == run] == [
        record.loss for record in records if record.event == "step"
    ]
    again = peft_core.load(run)
    assert peft_core.evaluate(again) == last.scores and again.trainable == tuned.trainable
    texts = ["The bears cry.", "The bears cries."]
    expected = [one.confidence for one in peft_core.predict(tuned, texts)]
    for trained in (again, run):
        for one, wanted in zip(peft_core.predict(trained, texts), expected, strict=True):
            assert one.confidence == pytest.approx(wanted, abs=1e-6)
    assert {layer.numerical for layer in tuned.ranks()} == {4}
    assert "capaboost_lora:rank=2,d=2" in str(results) and "matthews" in str(results)
    assert json.loads((results.save(tmp_path / "out") / "results.json").read_text())["summary"]
    assert (peft_core.export(run, tmp_path / "run") / "README.md").is_file()


def test_an_export_of_every_format_answers_as_it_was_trained(model, tmp_path):
    import transformers

    tuned = peft_core.attach(model, "capaboost_lora:rank=4,d=2")
    peft_core.train(tuned, learning_rate=2e-2, **SHORT)
    texts = ["The bears cry.", "The bears cries."]
    expected = [one.confidence for one in peft_core.predict(tuned, texts)]
    again = peft_core.load(peft_core.export(tuned, tmp_path / "native"))
    assert [one.confidence for one in peft_core.predict(again, texts)] == expected
    peft_core.export(tuned, tmp_path / "merged", "merged")
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        shares = plain(**tokenizer(texts, return_tensors="pt", padding=True)).logits.softmax(1)[:, 1].tolist()
    assert shares == pytest.approx([entry["acceptable"] for entry in expected], abs=1e-4)
    peft_core.export(tuned, tmp_path / "peft", "peft")
    assert read_adapter(tmp_path / "peft", "tiny-text").recipe.tasks[0].id == "acceptability"
    for format, said in (("native", "empty or does not exist"), ("onnx", "native, peft, merged")):
        with pytest.raises(InputError, match=said):
            peft_core.export(tuned, tmp_path / "native", format)


def test_merging_puts_the_update_into_the_weights_until_it_is_taken_out(model):
    tuned = peft_core.attach(model, "lora:rank=4")
    peft_core.train(tuned, learning_rate=2e-2, **SHORT)
    batch = model.backbone.processor(["The bears cry."], return_tensors="pt")
    before = {name: value.clone() for name, value in model.backbone.model.state_dict().items()}
    with torch.no_grad():
        expected, plain = tuned.logits(batch), model.backbone.logits(batch)
        merged = tuned.merge()
        torch.testing.assert_close(merged(**batch).logits, expected, rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="already"):
        tuned.merge()
    tuned.unmerge()
    assert not torch.allclose(plain, expected, atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.model.state_dict().items())


def test_numbers_pairs_and_images_are_asked_as_they_come(tmp_path):
    pair = peft_core.attach(peft_core.load("tiny-text", task="similarity"), "lora:rank=2")
    (before,) = peft_core.predict(pair, [("a dog", "a cat")])
    assert before.standardised, "no targets are known yet"
    peft_core.train(pair, **SHORT)
    first, second = peft_core.predict(pair, [("a dog", "a cat"), {"text": "a dog", "text2": "a cat"}])
    assert first == second and not first.standardised
    told = pair.trained.facts.reading
    peft_core.evaluate(pair, eval_rows=8, data_seed=5)
    assert pair.trained.facts.reading == told and peft_core.predict(pair, [("a dog", "a cat")]) == [first]
    table = tmp_path / "t.csv"
    table.write_text("text,text2\na dog,a cat\n")
    assert peft_core.predict(pair, table)[0].answer == pytest.approx(first.answer, abs=1e-5)
    for inputs, said in (("a", "list of inputs"), ([("a", "b", "c")], "2 parts"), (["a"], "text and text2")):
        with pytest.raises(InputError, match=said):
            peft_core.predict(pair, inputs)
    image = peft_core.attach(peft_core.load("tiny-vision", task="digits"), "lora:rank=2")
    (found,) = peft_core.predict(image, [np.zeros((32, 32, 3), np.uint8)])
    assert set(found.confidence) == set("0123456789")
    with pytest.raises(InputError, match="uint8"):
        peft_core.predict(image, [np.zeros((32, 32))])


def test_tasks_trained_together_answer_one_by_one():
    tuned = peft_core.attach(peft_core.load("tiny-text", task="acceptability+similarity"), "lora:rank=2")
    peft_core.train(tuned, **SHORT)
    assert "similarity.pearson" in peft_core.evaluate(tuned)
    (one,) = peft_core.predict(tuned, ["a dog"], task="acceptability")
    (two,) = peft_core.predict(tuned, [("a dog", "a cat")], task="similarity")
    assert one.confidence and isinstance(two.answer, float)
    with pytest.raises(InputError, match="acceptability, similarity"):
        peft_core.predict(tuned, ["a dog"])


def test_what_does_not_fit_is_a_sentence(model, tmp_path):
    tuned = peft_core.attach(model, "lora:rank=2")
    for call, said in (
        (lambda: peft_core.load("tiny-text", task="digits"), "takes text tasks"),
        (lambda: peft_core.load("tiny-text"), "a model takes a task"),
        (lambda: peft_core.load("abcdefgh", weights="tiny-text"), "no folder or run"),
        (lambda: peft_core.load(tmp_path), "no adapter of the native format"),
        (lambda: peft_core.load("tiny-text", task="nothing"), "task is 'nothing'"),
        (lambda: peft_core.attach(model, "lora:depth=2"), "lora.depth"),
        (lambda: peft_core.attach(model, "lora", seed=-1), "seed is -1"),
        (lambda: peft_core.attach(model, "lora", sites=["a"]), "named sites"),
        (lambda: peft_core.attach("tiny-text", "lora"), "must come from load"),
        (lambda: peft_core.train(tuned, steps=0), "training.steps"),
        (lambda: peft_core.train(tuned, pace=1), "there is no such option"),
        (lambda: peft_core.train(tuned, train_rows=10**9), "train_rows"),
        (lambda: peft_core.evaluate(tuned, eval_rows=0), "eval_rows is 0"),
        (lambda: peft_core.compare("tiny-text", "sentiment", ["lora"], seeds=0), "seeds is 0"),
        (lambda: peft_core.compare("tiny-text", "sentiment", ["lora"], reference="full"), "reference is"),
    ):
        with pytest.raises(InputError, match=said):
            call()


def test_a_comparison_of_which_nothing_finishes_raises(tmp_path, monkeypatch):
    broken = Method("broken", "Broken", "low-rank", "a test", get_method("lora").Config, _fails)
    monkeypatch.setattr(methods, "_OUTSIDE", {})
    register(broken)
    with pytest.raises(RunFailure, match="no luck"):
        peft_core.compare("tiny-text", "acceptability", ["broken"], seeds=1, folder=tmp_path, plan="apart", **SHORT)


def _fails(backbone, config, generator):
    attached = get_method("lora").attach(backbone, config, generator)

    def now(step):
        raise RunFailure("no luck")

    attached.before_step.append(now)
    return attached


# --- a module of one's own ---


def net(width=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 12), nn.Tanh(), nn.Linear(12, 3))


def stepped(tuned, x, y, steps=5):
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(steps):
        loss = nn.functional.mse_loss(tuned(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_an_adapted_module_is_the_formula_and_leaves_the_module_as_it_was():
    module, x, y = net(), torch.randn(16, 6), torch.randn(16, 3)
    before = copy.deepcopy(module.state_dict())
    tuned = peft_core.attach(module, "lora:rank=2,alpha=6", seed=4)
    assert torch.equal(tuned(x), module(x)), "a fresh one changes nothing"
    losses = stepped(tuned, x, y)
    assert losses[-1] < losses[0]
    state = tuned.state_dict()
    weights = {
        place: before[f"{place}.weight"] + 3 * state[f"adapter.{place}.B"] @ state[f"adapter.{place}.A"]
        for place in (0, 2)
    }
    hidden = torch.tanh(x @ weights[0].T + before["0.bias"])
    torch.testing.assert_close(tuned(x), hidden @ weights[2].T + before["2.bias"], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    other = peft_core.attach(net(), "lora:rank=2,alpha=6")
    other.load_state_dict(state)
    assert torch.equal(other(x), tuned(x))


def test_merging_an_adapted_module_gives_it_back_plain():
    module, x, y = net(), torch.randn(16, 6), torch.randn(16, 3)
    tuned = peft_core.attach(module, "capaboost_lora:rank=2,d=2", train_also=["2"])
    assert tuned.sites == ("0",)
    head = module[2].weight.clone()
    stepped(tuned, x, y)
    assert torch.equal(module[2].weight, head), "a copy of its own trains"
    expected = tuned.eval()(x)
    merged = tuned.merge()
    assert merged is module and not torch.equal(module[2].weight, head)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(tuned(x), expected, rtol=0, atol=1e-5)
    assert all(parameter.requires_grad for parameter in module.parameters())
    with pytest.raises(InputError, match="already"):
        tuned.merge()


def test_torch_s_own_transformer_layers_are_adapted_where_their_maps_run():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    tuned, x = peft_core.attach(encoder, "lora:rank=2"), torch.randn(3, 5, 8)
    assert tuned.sites == ("layers.0.linear1", "layers.0.linear2", "layers.1.linear1", "layers.1.linear2")
    with torch.no_grad():
        plain = encoder(x)
        for name, parameter in tuned.named_parameters():
            if name.endswith(".B"):
                parameter.normal_()
        changed = tuned(x)
        assert (changed - plain).abs().max() > 0.1, "the fused path would take the frozen weights"
        torch.testing.assert_close(tuned.merge()(x), changed, rtol=0, atol=1e-4)


def test_a_map_that_does_not_run_is_told_and_sites_are_chosen_by_pattern():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x) + x @ self.idle.weight.T

    tuned = peft_core.attach(Half(), "lora:rank=1")
    with pytest.warns(UserWarning, match=r"did not run.*idle"):
        tuned(torch.randn(2, 4))
    assert peft_core.attach(Half(), "lora:rank=1", sites=["us*"]).sites == ("used",)
    for named, said in (({"sites": ["q"]}, "there are used, idle"), ({"train_also": ["q"]}, "no parameter")):
        with pytest.raises(InputError, match=said):
            peft_core.attach(Half(), "lora:rank=1", **named)
    with pytest.raises(InputError, match="no linear map"):
        peft_core.attach(nn.Conv2d(1, 1, 1), "lora:rank=1")


def test_an_adapted_module_moves_and_draws_as_a_whole():
    tuned = peft_core.attach(net(), "lora:rank=2,dropout=0.5")
    x = torch.randn(16, 6)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if name.endswith(".B"):
                parameter.normal_()
    assert not torch.equal(tuned(x), tuned(x)), "dropout is drawn anew"
    assert torch.equal(tuned.eval()(x), tuned(x)) and not tuned.module.training
    tuned.double()
    assert tuned.module[0].weight.dtype == torch.float64 and tuned(x.double()).dtype == torch.float64


@pytest.mark.parametrize("method", [method.id for method in list_methods()])
def test_every_method_trains_on_a_module_of_one_s_own_or_says_why_not(method):
    x, y = torch.randn(16, 6), torch.randn(16, 3)
    rank = ":rank=2" if get_method(method).family == "low-rank" else ""
    try:
        tuned = peft_core.attach(net(), method + rank)
    except InputError as error:
        assert str(error).endswith(".")
        return
    losses = stepped(tuned, x, y)
    assert losses[-1] < losses[0]


def test_a_method_from_outside_is_known_until_the_process_ends(monkeypatch):
    monkeypatch.setattr(methods, "_OUTSIDE", {})
    mine = Method("mine", "Mine", "low-rank", "a test", get_method("lora").Config, get_method("lora").attach)
    register(mine)
    assert get_method("mine") is mine and mine in list_methods()
    for wrong, said in (
        ({"id": "lora"}, "choose another id"),
        ({"family": "new"}, "family"),
        ({"id": "A b"}, "method"),
    ):
        with pytest.raises(InputError, match=said):
            register(Method(**{**vars(mine), **wrong}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fine_tune_csv", "held-out rows"),
        ("capaboost_own_module", "rank 8"),
        ("rank_report", "the smaller adapter takes"),
        ("custom_method", "vera:rank=64"),
    ],
)
def test_the_examples_run_by_themselves(tmp_path, name, said):
    own = {"PYTHONPATH": str(ROOT), "RANKLAB_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=os.environ | own)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_nothing_adds_to_an_update_that_is_merged(model, tmp_path):
    tuned, other = (peft_core.attach(model, "lora:rank=2", seed=seed) for seed in (0, 1))
    tuned.merge()
    try:
        for call in (
            lambda: tuned.active(),
            lambda: other.active(),
            lambda: other.merge(),
            lambda: peft_core.train(tuned, **SHORT),
            lambda: peft_core.evaluate(tuned, eval_rows=8),
            lambda: peft_core.predict(tuned, ["The bears cry."]),
            lambda: peft_core.export(tuned, tmp_path / "merged", "merged"),
        ):
            with pytest.raises(InputError, match="unmerge"):
                call()
    finally:
        tuned.unmerge()
    assert peft_core.predict(tuned, ["The bears cry."]) and not (tmp_path / "merged").exists()


def test_attach_refuses_to_begin_with_a_run_and_predict_what_is_no_input(model):
    with pytest.raises(InputError, match="option of compare"):
        peft_core.attach(model, "lora:from=abcdefgh-0")
    with pytest.raises(InputError, match="inputs is"):
        peft_core.predict(peft_core.attach(model, "lora:rank=2"), [3])  # type: ignore[list-item]
