"""Ranks map by map: how they are written, what they attach, and where a run's learned ranks come from."""

from __future__ import annotations

import json

import pytest
import torch

from peft_core.methods import get_method, resolve
from peft_core.methods._rank_pattern import parse_pattern, write_pattern
from peft_core.records import ComparisonSpec, InputError, MethodSpec, TrainingConfig
from peft_core.runs import Supervisor
from peft_core.runs.learned import final_ranks, ranks_of_method, stored_view
from tests.conftest import miniature

RANKS = {"layer.0.q": 3, "layer.0.ffn_in": 5, "layer.1.v": 1}


def attach(backbone, **options):
    config = resolve(MethodSpec(id="lora", options=options))
    return get_method("lora").attach(backbone, config, torch.Generator().manual_seed(3))


def test_a_pattern_reads_as_it_was_written():
    text = write_pattern(RANKS | {"layer.1.k": 0}, "abcdefgh-2")
    assert text == "layer.*.q:3/layer.*.ffn_in:5/layer.*.v:0.1@abcdefgh-2"
    assert parse_pattern(text) == RANKS


@pytest.mark.parametrize("text", ["layer.*.q:", "layer.*.q:0", "*:1:2", "a*b*:1", "x*:1/x*:2", "layer.*.q:9999", "*"])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(InputError, match="rank"):
        parse_pattern(text)


def test_every_map_gets_its_own_rank_and_scale():
    backbone = miniature("roberta")
    attached = attach(backbone, rank_pattern=write_pattern(RANKS), alpha=6.0)
    assert {name: len(module.A) for name, module in attached.modules.items()} == RANKS
    assert attached.modules["layer.0.q"].scale == 2 and attached.modules["layer.1.v"].scale == 6
    assert {update.site: update.bound for update in attached.updates()} == RANKS
    sites = {site.name: site for site in backbone.sites("six")}
    weights = sum(rank * (sites[name].in_features + sites[name].out_features) for name, rank in RANKS.items())
    assert attached.active_parameters() == weights


def test_equal_ranks_are_plain_lora():
    backbone = miniature("roberta")
    names = [site.name for site in backbone.sites("six")]
    one = attach(backbone, rank_pattern=write_pattern(dict.fromkeys(names, 4)))
    other = attach(backbone, rank=4, sites="six")
    assert one.modules.keys() == other.modules.keys()
    assert all(torch.equal(one.modules[name].A, other.modules[name].A) for name in names)


def test_the_config_is_what_trains_and_reads_back():
    config = resolve(MethodSpec(id="lora", options={"rank_pattern": write_pattern(RANKS)}))
    assert config.rank == 5
    assert resolve(MethodSpec(id="lora", options=config.model_dump(exclude_none=True))) == config


@pytest.mark.parametrize(
    "options",
    [{"rank": 2}, {"sites": "six"}, {"rank_pattern": "layer.*.z:3"}, {"rank_pattern": "layer.*.q:33"}],
)
def test_what_contradicts_the_ranks_is_refused(options):
    with pytest.raises(InputError):
        attach(miniature("roberta"), **({"rank_pattern": write_pattern(RANKS)} | options))


def test_a_run_that_nobody_looked_up_is_refused():
    with pytest.raises(InputError, match="finished run"):
        attach(miniature("roberta"), rank_pattern="abcdefgh-2")


def test_a_file_of_ranks_is_read_once(tmp_path, monkeypatch):
    file = tmp_path / "ranks.json"
    file.write_text(json.dumps(RANKS))
    method = MethodSpec(id="lora", options={"rank_pattern": str(file)})
    found = ranks_of_method(method, find=lambda name: pytest.fail(name))
    assert parse_pattern(str(found.options["rank_pattern"])) == RANKS
    monkeypatch.setenv("RANKLAB_PUBLIC", "1")
    with pytest.raises(InputError, match="public"):
        ranks_of_method(method, find=lambda name: pytest.fail(name))


@pytest.mark.parametrize("content", ["[1]", "{", '{"layer.0.q": 1.5}', '{"layer.0.q": true}', "{}"])
def test_a_file_that_holds_no_ranks_is_refused(tmp_path, content):
    file = tmp_path / "ranks.json"
    file.write_text(content)
    with pytest.raises(InputError, match=r"lora\.rank_pattern"):
        ranks_of_method(MethodSpec(id="lora", options={"rank_pattern": str(file)}), find=lambda name: pytest.fail(name))


def test_without_a_store_no_run_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path))
    with pytest.raises(InputError, match="no comparison or run"):
        ranks_of_method(MethodSpec.parse("lora:rank_pattern=abcdefgh-2"), stored_view)
    assert not list(tmp_path.iterdir())


def test_lora_is_retrained_with_the_ranks_of_a_stored_run(tmp_path):
    training = TrainingConfig(steps=12, batch_size=4, eval_every=12, max_length=16)
    learner = MethodSpec.parse("increlora:target_rank=2,interval=1,learning_rate=0.01")
    spec = ComparisonSpec(methods=(learner,), seeds=(0,), train_rows=8, eval_rows=4, training=training)
    with Supervisor(tmp_path, executor="thread") as supervisor:
        first = supervisor.submit(spec)
        assert supervisor.wait(first, timeout=60)
        source = supervisor.view(first).runs[0].run
        learned = final_ranks(supervisor.view(first).events, source, 12)
        again = MethodSpec.parse(f"lora:rank_pattern={source}")
        second = supervisor.submit(spec.model_copy(update={"methods": (again,)}))
        assert supervisor.wait(second, timeout=60)
        view = supervisor.view(second)
        with pytest.raises(InputError, match="finished run"):
            supervisor.submit(spec.model_copy(update={"methods": (MethodSpec.parse(f"lora:rank_pattern={first}-7"),)}))
    kept = {name: rank for name, rank in learned.items() if rank}
    assert sum(kept.values()) == 2 * len(learned) and len(set(kept.values())) > 1
    assert parse_pattern(view.runs[0].config["rank_pattern"]) == kept
    assert view.runs[0].config["rank_pattern"].endswith(f"@{source}")
    layers = [layer for event in view.events if event["event"] == "rank" for layer in event["layers"]]
    assert {layer["site"]: layer["bound"] for layer in layers} == kept
