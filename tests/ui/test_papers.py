"""The Papers tab's questions: every quoted figure, the presets that measure it, and measured rows with their marks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from peft_core.records import QuotedFigure
from peft_core.report.marked import ENCODER_MISSING
from peft_core.report.quoted import quoted_figures
from tests.ui.stand_in import StandInEngine
from ui.engine import LocalEngine
from ui.papers_routes import papers_routes
from ui.papers_service import Papers, presets_for


class Engine(StandInEngine):
    """The stand-in with the presets there are; a model and a benchmark of the papers."""

    def presets(self, task: str) -> list[dict[str, Any]]:
        return LocalEngine().presets(task)

    def catalogue(self) -> dict[str, Any]:
        return {"models": [{"id": "roberta-base", "at_hand": False}, {"id": "tiny-text", "at_hand": True}]}


@pytest.fixture
def client() -> Iterator[TestClient]:
    yield TestClient(Starlette(routes=papers_routes(Papers(Engine()))))


def asked(client: TestClient, name: str) -> dict[str, Any]:
    return client.get(f"/ranklab/papers/{name}").json()


def figure(method: str | None, **change: Any) -> QuotedFigure:
    said = {"paper": "capaboost", "table": "2", "printed": "x", "model": "roberta-base", "task": "glue/mrpc"}
    return QuotedFigure(method=method, metric="accuracy", score=1.0, **{**said, **change})


def names(one: QuotedFigure) -> list[tuple[str, dict[str, str]]]:
    return [(found["name"], found["options"]) for found in presets_for(one, LocalEngine().presets(one.task))]


def test_every_quoted_figure_is_sent_as_it_is_kept(client: TestClient) -> None:
    found = asked(client, "quoted")
    rows = [dict(zip(found["columns"], values, strict=True)) for values in found["rows"]]
    assert len(rows) == len(quoted_figures()) == 1003
    for row, one in zip(rows, quoted_figures(), strict=True):
        assert {name: row[name] for name in row if name != "presets"} == {
            name: value for name, value in one.model_dump().items() if name != "kind"
        }
    assert set(found["papers"]) == {row["paper"] for row in rows}
    assert sum(bool(row["presets"]) for row in rows) > 300


def test_a_preset_is_of_the_same_paper_model_and_method() -> None:
    boosted = "capaboost/roberta-base/capaboost_lora:d=2,rank=32"
    assert names(figure("capaboost_lora")) == [(boosted, {})]
    assert names(figure("capaboost_lora:masks=2:4")) == [(boosted, {"masks": "2:4"})]
    assert names(figure("capaboost_lora:d=2,rank=32")) == [(boosted, {})]
    assert names(figure("capaboost_lora:d=4")) == []
    assert names(figure("lora")) == []
    assert names(figure(None)) == []
    assert names(figure("capaboost_lora", model="t5-base")) == []
    assert names(figure("capaboost_lora", task="average")) == []


def test_switches_are_written_as_the_form_takes_them() -> None:
    switched = figure("increlora:advance_learning=false", paper="increlora", task="glue/rte", model="deberta-v3-base")
    assert [options for _, options in names(switched)] == [{"advance_learning": "false"}]
    assert len(names(figure("capaboost_pfeiffer", task="squad", model="deberta-v3-base"))) == 4


def test_measured_rows_have_marks_and_what_is_missing_is_said(client: TestClient, monkeypatch: Any) -> None:
    found = asked(client, "measured")
    assert found["missing"] == [] and {"glue/sst2", "acceptability"} <= {row["task"] for row in found["rows"]}
    assert all(row["mark"].startswith(f"measured: {row['model']}, {row['task']}") for row in found["rows"])
    monkeypatch.setattr("ui.papers_service.shipped_encoder", lambda: None)
    found = asked(client, "measured")
    assert found["missing"] == [ENCODER_MISSING]
    assert found["rows"] and not [row for row in found["rows"] if row["task"].startswith("glue/")]


def test_what_is_on_this_machine_is_told(client: TestClient) -> None:
    models = {"roberta-base": False, "tiny-text": True}
    assert asked(client, "here") == {"models": models, "tasks": {"glue/cola": False}}
