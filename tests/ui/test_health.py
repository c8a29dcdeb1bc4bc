"""/health and /metrics: quick over many runs, honest when the store or the scheduler is gone, nothing private."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from tests.runs.big_store import fill
from tests.runs.support import comparison, supervise
from ui.health_routes import health_routes
from ui.metrics import Counting, Metrics


@pytest.fixture
def supervisor(tmp_path):
    with supervise(tmp_path, executor="thread", max_queue=3) as made:
        yield made


def client_of(supervisor, *, seen: bool = True) -> TestClient:
    metrics = Metrics(supervisor.figures)
    supervisor.on_stored(metrics.stored)
    routes = [
        *health_routes(supervisor.health, metrics if seen else None),
        Route("/ranklab/view", lambda request: PlainTextResponse("seen")),
        Route("/ranklab/named/{name}", lambda request: PlainTextResponse("seen")),
        Mount("/ranklab/static", PlainTextResponse("file")),
    ]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(Counting, metrics=metrics)]))


def figures(client: TestClient) -> dict[str, float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    return {"".join([sample.name, *sample.labels.values()]): sample.value for sample in found}


def test_a_server_that_works_is_well(supervisor):
    answer = client_of(supervisor).get("/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok", "version": "0.1.0", "store": "ok", "scheduler": True, "executor": True, "room": True,
    }  # fmt: skip


def test_a_locked_store_passes_and_a_lost_one_does_not(supervisor):
    with closing(sqlite3.connect(supervisor.home / "store.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = client_of(supervisor).get("/health")
        assert (answer.status_code, answer.json()["store"]) == (200, "busy")
    for file in supervisor.home.glob("store.sqlite*"):
        file.unlink()
    answer = client_of(supervisor).get("/health")
    assert (answer.status_code, answer.json()["store"]) == (503, "gone")
    assert not (supervisor.home / "store.sqlite").exists(), "asking must not make a store"


def test_a_store_that_is_something_else_is_gone(supervisor):
    for file in supervisor.home.glob("store.sqlite*"):
        file.unlink()
    (supervisor.home / "store.sqlite").write_bytes(b"no store at all, and long enough to be looked at" * 99)
    assert client_of(supervisor).get("/health").status_code == 503


def test_without_a_scheduler_nothing_is_well(supervisor):
    supervisor.close()
    answer = client_of(supervisor).get("/health")
    assert (answer.status_code, answer.json()["scheduler"], answer.json()["status"]) == (503, False, "failing")


def test_workers_that_cannot_start_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("peft_core.runs.process.SPARE_PATIENCE", 0.0)  # how soon the next one is tried
    with supervise(tmp_path, trainer="no.such.module:function") as supervisor:
        end = time.monotonic() + 30
        while (found := supervisor.health()).executor and time.monotonic() < end:
            time.sleep(0.1)
        assert not found.executor and found.scheduler and not found.able


def test_what_happens_is_counted(supervisor):
    client = client_of(supervisor)
    made = supervisor.submit(comparison(methods=2, steps=3))
    assert supervisor.wait(made, 20)
    for path in ("/ranklab/view", "/ranklab/view", "/ranklab/named/secret", "/ranklab/static/secret", "/secret"):
        client.get(path)
    client.request("SECRET", "/secret")
    found = figures(client)
    assert found["ranklab_runsfinished"] == 2 and found["ranklab_runsfailed"] == 0
    assert found["ranklab_queue_length"] == 0 and found["ranklab_workers"] == 0
    assert found["ranklab_memory_bytesserver"] > 2**20
    assert found["ranklab_http_request_seconds_count/ranklab/view"] == 2
    assert found["ranklab_http_requests_total/ranklab/viewGET2xx"] == 2
    assert found["ranklab_http_requests_totalotherother4xx"] == 1
    reports = found["ranklab_events_total"]
    assert reports >= 6 and 1 <= found["ranklab_event_store_seconds_count"] <= reports
    text = client.get("/metrics").text
    assert "secret" not in text.lower() and made not in text and str(supervisor.home) not in text
    assert not re.search(r"lora|stand-in|testclient", text)


def test_over_ten_thousand_runs_no_result_is_read(tmp_path):
    number = fill(tmp_path / "store.sqlite")
    with supervise(tmp_path, executor="thread") as supervisor:
        found = figures(client_of(supervisor))
        with closing(sqlite3.connect(tmp_path / "store.sqlite")) as connection:
            query = "EXPLAIN QUERY PLAN SELECT state, count(*) FROM runs INDEXED BY runs_listed GROUP BY state"
            plan = " ".join(row[3] for row in connection.execute(query))
    assert sum(value for name, value in found.items() if name.startswith("ranklab_runs")) == number == 10_000
    assert "COVERING INDEX" in plan


def test_where_metrics_are_off_there_are_none(supervisor):
    client = client_of(supervisor, seen=False)
    assert client.get("/metrics").status_code == 404 and client.get("/health").status_code == 200
