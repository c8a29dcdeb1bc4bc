"""The Compare tab's addresses for layers, links, commands and comparisons to start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.report.sample import METHODS, sample_view
from tests.ui.stand_in import StandInEngine, StandInRuns
from ui.compare_routes import compare_routes
from ui.compare_service import CompareService
from ui.links import LONGEST_QUERY
from ui.service import Service
from ui.uploads import Uploads


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    view = sample_view()
    shipped = view.model_copy(update={"comparison": view.comparison.model_copy(update={"origin": "shipped"})})
    service = Service(StandInRuns(), StandInEngine(), shipped, Uploads(tmp_path / "uploads"))
    return TestClient(Starlette(routes=compare_routes(CompareService(service, StandInEngine()))))


def test_the_layers_of_a_method_and_no_other(client: TestClient) -> None:
    found = client.get("/ranklab/layers", params={"id": "example", "label": METHODS[0]}).json()
    assert found["sites"] and len(found["runs"]) == 2
    assert all(len(row) == len(found["sites"]) for run in found["runs"].values() for row in run["numerical"])
    assert client.get("/ranklab/layers", params={"id": "example", "label": "nothing"}).json()["runs"] == {}
    assert client.get("/ranklab/layers", params={"id": "nothing"}).json()["errors"][0]["message"].endswith(".")
    assert client.get("/ranklab/spectra", params={"id": "example", "after": "x"}).json()["after"] == 0


def test_a_form_is_said_as_a_link_and_a_command(client: TestClient) -> None:
    form = {"model": "tiny-text", "task": "acceptability", "seeds": "0, 5", "methods": [{"id": "lora"}]}
    said = client.post("/ranklab/said", json={**form, "lock": "rank"}).json()
    assert said["command"].endswith("--method lora --seed-list 0,5 --lock rank --lock-to lora")
    assert client.get(f"/ranklab/linked?{said['query']}").json()["form"]["seeds"] == "0, 5"
    broken = client.post("/ranklab/said", json={**form, "seeds": "x"}).json()
    assert broken["command"] == "" and "seeds" in broken["why"] and "seeds=x" in broken["query"]
    wrong = client.post("/ranklab/said", json={**form, "lock": "rank", "lock_to": "9"}).json()
    assert "choose one of the methods" in wrong["why"]


def test_a_link_that_is_none_or_too_long(client: TestClient) -> None:
    assert client.get("/ranklab/linked?__theme=dark").json() == {"form": None, "notes": []}
    long = client.get(f"/ranklab/linked?model={'x' * LONGEST_QUERY}").json()
    assert long["errors"][0]["message"] == "The link is too long to be read."


def test_a_link_names_no_file_of_a_public_server(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    query = {"task": str(tmp_path / "t.csv"), "methods.0": "lora"}
    assert client.get("/ranklab/linked", params=query).json()["form"]["task"] == query["task"]
    monkeypatch.setenv("RANKLAB_PUBLIC", "1")
    found = client.get("/ranklab/linked", params=query).json()
    assert found["form"]["task"] == "" and "public page" in found["notes"][0]
    assert found["form"]["methods"][0]["id"] == "lora"


def test_comparisons_to_start_from_are_forms(client: TestClient) -> None:
    starts = client.get("/ranklab/starts").json()
    assert len(starts) == 14 and all(start["form"]["methods"] and start["about"] for start in starts)
