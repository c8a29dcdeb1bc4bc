"""Method by architecture: train, export, load in a fresh process, compare logits; merge; native."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import peft
import pytest
import torch
from safetensors.torch import save_file

from peft_core.backbones import initial_head
from peft_core.export.merge import merge
from peft_core.export.native import read_native, save_native
from peft_core.export.recipe import attach_trained
from peft_core.export.writing import check_format, save_format
from peft_core.methods import get_method, list_methods
from peft_core.records import ComparisonSpec, InputError, MethodSpec, RunSpec
from peft_core.training.native import save_adapter
from tests.conftest import batch_for, has_place, miniature
from tests.export.trips import as_trained, save_batch
from tests.methods.family_checks import lively, outputs, put
from tests.methods.test_contract import attach, take_steps
from tests.miniatures import OTHERS

ARCHITECTURES = ("bert", "roberta", "deberta_v2", "vit", "gpt2", "t5", "llama")
MASKS = [{"masks": masks, "d": 2} for masks in ("same", "dropout", "2:4")]
VARIANTS = {
    "roberta": [
        *(("capaboost_lora", options) for options in MASKS),
        ("capaboost_lora", {"rank": 16, "d": 6}),
        ("lora", {"alpha": 11, "use_rslora": True, "sites": "all-linear"}),
        ("lora", {"rank": 5, "rank_pattern": "layer.*.q:3.0/layer.*.v:0.5"}),
        ("adalora", {"boost.d": 3}),
        ("sora", {"boost.d": 2, "threshold": 0.5}),
        ("increlora", {"boost.d": 2}),
        ("rm_lora", {"boost.masks": "2:4"}),
        ("r_lora", {"boost.d": 2}),
        ("gm_lora", {"boost.d": 2, "boost.masks": "same"}),
        ("lora", {"boost.d": 4, "boost.sparsity": 0.75}),
        ("propetl_lora", {"share": False}),
        ("propetl_lora", {"random_masks": True}),
    ],
    "gpt2": [("lora", {"sites": "qkvo", "rank": 16}), ("capaboost_lora", {"sites": "six"})],
    "deberta_v2": [("adalora", {"bypass_positions": True})],
}


class Processor:
    """Stands for a tokenizer: a miniature has none."""

    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def trained(backbone, method_id, options):
    attached = attach(backbone, method_id, seed=7, **options)
    take_steps(attached, 12 if attached.counts_at_target else 3, rate=2e-2)  # what grows must have ended growing
    attached.train(False)
    return attached


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trip(request, tmp_path_factory):
    """Every method with a place in the architecture, trained and written; and what a fresh process found."""
    family, folder = request.param, tmp_path_factory.mktemp("trip") / request.param
    plain = lively(family)
    put(initial_head(plain, 7), plain.model)
    batch, runs = batch_for(plain), {}
    save_batch(folder, plain, batch)
    with torch.no_grad():
        base = plain.logits(batch)
    methods = [(method.id, {}) for method in list_methods() if has_place(method, family)]
    for number, (method_id, options) in enumerate(methods + VARIANTS.get(family, [])):
        attached = trained(lively(family), method_id, options)
        attached.backbone.processor = Processor()
        run, place = as_trained(attached, method_id, options), folder / f"{number}-{method_id}"
        place.mkdir()
        save_file({"logits": outputs(attached), "base": base.clone()}, place / "expected.safetensors")
        runs[place.name] = run, set()
        for kind in ("peft", "merged"):
            try:
                check_format(run, kind)
            except InputError:
                runs[place.name][1].add(kind)
                continue
            (place / kind).mkdir()
            save_format(run, kind, place / kind)
    return runs, read(folder)


def read(folder):
    """What a fresh process found below a folder."""
    command = [sys.executable, "-m", "tests.export.trips", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def expected_in(runs, kind, fits):
    return {
        f"{name}/{kind}"
        for name, (run, _) in runs.items()
        if fits(get_method(run.recipe.method)) and not run.attached.positions.left_out
    }


def holds(found, kind, distance):
    for name, seen in found.items():
        if name.endswith(kind):
            assert seen["distance"] < distance and seen["moved"] > 1e-3, (name, seen)
            assert not seen["said"] and not seen["unused"], (name, seen)


def test_every_low_rank_method_is_a_peft_folder_with_equal_logits(trip):
    runs, found = trip
    rotary = next(iter(runs.values()))[0].backbone.family == "llama"
    families = ("low-rank", "prefix") if rotary else ("low-rank",)
    expected = expected_in(runs, "peft", lambda method: method.family in families)
    assert {name for name in found if name.endswith("peft")} == expected
    holds(found, "peft", 1e-5)


def test_every_mergeable_method_is_a_plain_folder_with_equal_logits(trip):
    runs, found = trip
    expected = expected_in(runs, "merged", lambda method: method.mergeable or method.part == "floor")
    assert {name for name in found if name.endswith("merged")} == expected
    holds(found, "merged", 1e-4)


def test_merged_on_the_live_backbone_and_taken_out_again_bit_for_bit(trip):
    for name, (run, refused) in trip[0].items():
        if "merged" in refused:
            continue
        expected, model = outputs(run.attached), run.backbone.model
        before = {key: (value, value.clone()) for key, value in model.named_parameters()}
        unmerge = merge(run)
        with torch.no_grad():
            merged = run.backbone.logits(batch_for(run.backbone))
        unmerge()
        torch.testing.assert_close(merged, expected, rtol=0, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
        after = dict(model.named_parameters())
        assert after.keys() == before.keys()
        assert all(after[key] is value and torch.equal(value, kept) for key, (value, kept) in before.items())


def test_the_native_folder_of_every_method_answers_exactly_the_same(trip, tmp_path):
    for name, (run, _) in trip[0].items():
        kept, folder = tmp_path / name / "run", tmp_path / name / "native"
        folder.mkdir(parents=True)
        save_adapter(kept, spec_of(run), run.config, run.attached)
        save_native(run.recipe, kept, folder)
        family = run.backbone.id.removeprefix("mini-")
        again = attach_trained(read_native(folder), lively(family), folder)
        assert torch.equal(outputs(again.attached), outputs(run.attached)), name


def spec_of(run) -> RunSpec:
    method = MethodSpec(id=run.recipe.method)
    comparison = ComparisonSpec(methods=(method,))
    return RunSpec(run="c-0", comparison=comparison, method=method, label=method.id, seed=run.recipe.seed)


@pytest.mark.parametrize("family", OTHERS)
def test_every_other_architecture_is_a_peft_folder_too(family, tmp_path):
    attached = trained(lively(family), "capaboost_lora", {"sites": "all-linear"})
    save_format(as_trained(attached, "capaboost_lora"), "peft", tmp_path)
    other = lively(family)
    other.model = peft.PeftModel.from_pretrained(other.model, tmp_path).eval().base_model.model
    with torch.no_grad():
        found = other.logits(batch_for(other))
    torch.testing.assert_close(found, outputs(attached), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("family", "problem"), [("roberta", "span"), ("gpt2", "generation"), ("t5", "generation")])
def test_other_problems_load_as_what_they_are(family, problem, tmp_path):
    plain = miniature(family, outputs=2, problem=problem)
    batch = batch_for(plain) | ({"decoder_input_ids": torch.full((6, 3), 5)} if family == "t5" else {})
    folder = tmp_path / family
    save_batch(folder, plain, batch)
    attached = attach(miniature(family, outputs=2, problem=problem), "capaboost_lora")
    for parameter in attached.trainable().values():
        parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(parameter)))
    attached.train(False)
    place = folder / "0-capaboost_lora"
    place.mkdir()
    with attached.active():
        logits = attached.logits(batch)
    save_file({"logits": logits, "base": plain.logits(batch)}, place / "expected.safetensors")
    attached.backbone.processor = Processor()
    for kind in ("peft", "merged"):
        (place / kind).mkdir()
        save_format(as_trained(attached, "capaboost_lora"), kind, place / kind)
    found = read(folder)
    assert len(found) == 2
    holds(found, "peft", 1e-5)
    holds(found, "merged", 1e-4)
