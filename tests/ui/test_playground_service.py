"""The playground's questions and addresses, over stand-ins."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from starlette.applications import Starlette
from starlette.testclient import TestClient

from peft_core.export.finished import FinishedRun
from peft_core.playground import Curves, FitPair, Sketch, made_target, sketched
from peft_core.records import ComparisonSpec, InputError, MethodSpec
from tests.ui.stand_in import StandInEngine, StandInRuns
from ui.playground_routes import compute_alone, playground_routes
from ui.playground_service import Playground, points

SMALL = {"rank": 4, "d": 3, "out_features": 40, "in_features": 36}
PAIRS = [{"rank": 2}, {"rank": 2, "d": 2, "sparsity": 0.5}]


@pytest.fixture
def playground() -> Playground:
    return Playground(StandInRuns(pause=0), StandInEngine())


@pytest.fixture
def client(playground: Playground) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=playground_routes(playground))) as client:
        yield client


def asked(client: TestClient, name: str, values: dict) -> dict:
    answer = client.post(f"/ranklab/playground/{name}", json=values)
    assert answer.status_code == 200
    return answer.json()


def test_a_sketch_is_the_engine_s_and_says_what_was_moved(client):
    found = asked(client, "sketch", SMALL)
    assert found.pop("notes") == []
    assert found == json.loads(json.dumps(sketched(Sketch(**SMALL))))
    assert asked(client, "sketch", SMALL | {"d": 99})["notes"] == ["d was set to 8: it goes from 1 to 8 here."]
    assert asked(client, "sketch", SMALL | {"rank": "x"})["errors"][0]["field"] == "rank"


def test_draws_are_counted_once(client, playground, monkeypatch):
    found = asked(client, "draws", SMALL)
    assert found["share_equal"] == 1 and found["target"] == 12 and found["draws"] > 1
    monkeypatch.setattr("peft_core.playground.drawn", lambda sketch: pytest.fail("counted again"))
    assert asked(client, "draws", SMALL) == found


def test_a_fit_streams_its_curves(client):
    answer = client.post("/ranklab/playground/fit", json={"pairs": PAIRS, "size": 16, "target_rank": 4, "equal": True})
    opening, *points = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["label"] for row in opening["pairs"]] == ["LoRA r=2", "CapaBoost r=3 d=2 s=0.5"]
    assert [row["look"]["marker"] for row in opening["pairs"]] == ["circle", "square"]
    assert points[0]["step"] == 0 and points[-1]["step"] == opening["steps"]
    assert points[-1]["captured"][0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"pairs": []}, "pairs"),
        ({"pairs": [{"rank": "six"}]}, "pairs.0.rank"),
        ({"pairs": [{"rank": 6, "d": 2, "masks": "2:4"}]}, "pairs"),
        ({"pairs": PAIRS, "run": "nothing"}, "id"),
        ({"pairs": PAIRS, "colour": 1}, "colour"),
    ],
)
def test_a_fit_that_cannot_be_is_refused_in_a_sentence(client, values, field):
    errors = asked(client, "fit", values)["errors"]
    assert errors[0]["field"] == field and errors[0]["message"].endswith(".")


def test_only_json_is_taken(client):
    assert client.post("/ranklab/playground/sketch", content="{}").status_code == 415
    assert client.post("/ranklab/playground/fit", json=[1]).status_code == 400


def test_too_many_that_wait_are_told(client, monkeypatch):
    monkeypatch.setattr("ui.playground_routes.MOST_WAITING", 0)
    for name in ("draws", "fit"):
        assert "try again" in asked(client, name, {"pairs": PAIRS})["errors"][0]["message"]


def test_a_thread_of_its_own_computes_on_one_core():
    before, seen = torch.get_num_threads(), []

    def work() -> None:
        compute_alone()
        seen.append(torch.get_num_threads())

    for target in (work, lambda: seen.append(torch.get_num_threads())):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert seen == [1, before] and torch.get_num_threads() == before


def test_a_fit_that_diverges_is_told_as_none():
    curves = Curves(made_target("gaussian", 16, 4, 0), [FitPair(rank=2)], 0)
    curves._groups[0].a.value.fill_(torch.inf)
    assert next(iter(points(curves)))["captured"] == [None]


# --- targets from finished runs ---


def finished(runs: StandInRuns, *methods: str) -> str:
    training = {"steps": 2, "eval_every": 1}
    spec = ComparisonSpec(methods=[MethodSpec(id=name) for name in methods], seeds=[0], training=training)
    name = runs.submit(spec)
    while not runs.rows[name].state.ended:
        threading.Event().wait(0.01)
    return name


def test_runs_that_trained_everything_are_offered_without_a_list_of_all(monkeypatch):
    runs = StandInRuns(pause=0)
    finished(runs, "lora")
    name = finished(runs, "lora", "full")
    monkeypatch.setattr(runs, "comparisons", lambda: pytest.fail("every comparison was listed"))
    assert [entry["run"] for entry in Playground(runs, StandInEngine()).targets()] == [runs.runs[name][1].run]


def test_an_update_of_a_run_is_a_target(monkeypatch):
    updates = {"layer.0.q": torch.randn(24, 3) @ torch.randn(3, 16), "large": torch.zeros(2048, 1024)}
    view = SimpleNamespace(view=lambda comparison: comparison)
    monkeypatch.setattr(FinishedRun, "of", lambda view, run, folder: (view, run, folder))
    loads = []
    monkeypatch.setattr("peft_core.export.updates.updates_of_run", lambda run: loads.append(run) or updates)
    playground = Playground(view, StandInEngine(), Path)
    assert playground.sites("abcdefgh-1") == [{"site": "layer.0.q", "shape": [24, 16]}]
    curves = playground.curves({"pairs": [{"rank": 3}], "run": "abcdefgh-1", "site": "layer.0.q"})
    *_, last = points(curves)
    assert last["captured"] == [pytest.approx(1, abs=0.001)]
    assert loads == [("abcdefgh", "abcdefgh-1", Path("abcdefgh-1"))]
    with pytest.raises(InputError, match="it must be one of layer"):
        playground.curves({"pairs": [{"rank": 3}], "run": "abcdefgh-1", "site": "large"})
