"""The Runs tab's addresses over a real supervisor with a stand-in trainer, and exports over a made-up writer."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from peft_core.records import InputError
from peft_core.runs import Limits, Refused, Supervisor
from tests.runs.big_store import fill
from tests.runs.support import comparison, supervise, until
from ui.child import CommandFailed, Commands
from ui.exports import MOST_WAITING, ExportCommand, Exports
from ui.pushes import Pushes
from ui.runs_routes import runs_routes
from ui.runs_service import LONGEST_NOTE, MOST_CURVES, RunsService, refusals

SLACK = 5  # the bars are for a quiet machine; tests allow five times as much
LIMITS = Limits(beat=2.5, stall=30.0, stop=2.0, spare=0.0, undo=600.0)


class Writer:
    """Writes a folder when it is let; refuses what it is told to."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), []
        self.go.set()

    def __call__(self, run: str, kind: str, to: Path) -> None:
        self.asked.append((run, kind))
        assert self.go.wait(10)
        if kind == "peft":
            raise CommandFailed("This method has no such format.")
        (to / "deep").mkdir(parents=True)
        (to / "deep" / "weights.bin").write_bytes(b"w" * 1000)


def no_push(*_: object) -> str:
    raise AssertionError


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with supervise(tmp_path / "home", "thread", limits=LIMITS, server=True) as made:
        yield made


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def client(supervisor: Supervisor, writer: Writer, tmp_path: Path) -> Iterator[TestClient]:
    exports, pushes = Exports(tmp_path / "exports", writer), Pushes(tmp_path / "pushes", no_push)
    yield TestClient(Starlette(routes=runs_routes(RunsService(supervisor, exports, pushes))))
    writer.go.set()
    exports.close()


def get(client: TestClient, path: str, **query: Any) -> dict[str, Any]:
    return client.get(f"/ranklab/runs/{path}", params=query).json()


def post(client: TestClient, path: str, **body: Any) -> Any:
    return client.post(f"/ranklab/runs/{path}", json=body).json()


def finished(supervisor: Supervisor, **settings: Any) -> str:
    made = supervisor.submit(comparison(**{"methods": 2, "steps": 12, **settings}))
    assert supervisor.wait(made, 20)
    return made


def test_the_list_is_searched_filtered_and_paged(client: TestClient, supervisor: Supervisor) -> None:
    made = finished(supervisor)
    found = get(client, "list", choices=1)
    assert [row["run"] for row in found["rows"]] == [f"{made}-0", f"{made}-1"]
    assert found["choices"]["state"] == [["finished", 2]]
    assert get(client, "list", search="rank=2")["total"] == 1
    page = get(client, "list", offset=1, limit=1, sort="method", up=1)
    assert (page["total"], [row["label"] for row in page["rows"]]) == (2, ["lora:rank=2"])
    assert "choices" not in page


@pytest.mark.parametrize("query", [{"sort": "1; DROP TABLE runs"}, {"limit": "999999"}, {"offset": "-1"}, {"x": "1"}])
def test_a_bad_query_is_one_sentence(client: TestClient, query: dict[str, str]) -> None:
    [error] = get(client, "list", **query)["errors"]
    assert error["field"].endswith(next(iter(query))) and error["message"].endswith(".")


def test_curves_come_from_any_comparison_and_then_only_what_is_new(client: TestClient, supervisor: Supervisor) -> None:
    runs = [f"{finished(supervisor)}-0", f"{finished(supervisor, steps=20)}-1"]
    first = get(client, "curves", run=runs)
    assert [len(run["points"]["step"]["step"]) for run in first["runs"]] == [12, 20]
    assert first["refused"] == {}
    again = get(client, "curves", run=[f"{run['run']}@{run['seq']}" for run in first["runs"]])
    assert [run["points"] for run in again["runs"]] == [{}, {}]
    assert "errors" in get(client, "curves", run=["zzzzzzzz-0"])
    assert "at most" in get(client, "curves", run=runs * MOST_CURVES)["errors"][0]["message"]


def test_scores_of_different_metrics_share_no_chart() -> None:
    assert refusals(["accuracy"]) == {}
    assert "accuracy, bleu" in refusals(["accuracy", "bleu"])["score"]


def test_a_run_tells_everything_and_keeps_notes(client: TestClient, supervisor: Supervisor) -> None:
    made = finished(supervisor)
    assert post(client, "note", id=f"{made}-1", text="  odd  ") is None
    assert post(client, "note", id=made, text="=1+1") is None
    found = get(client, "run", id=f"{made}-1")
    assert (found["note"], found["comparison_note"], found["state"], found["runs"]) == ("odd", "=1+1", "finished", 2)
    assert "resampled" not in found["result"]
    assert get(client, "list", search="odd")["total"] == 1
    long = post(client, "note", id=made, text="x" * (LONGEST_NOTE + 1))
    assert "2,000 characters" in long["errors"][0]["message"]
    assert "errors" in get(client, "run", id="zzzzzzzz-0")


def test_what_is_deleted_can_be_brought_back(client: TestClient, supervisor: Supervisor) -> None:
    made = finished(supervisor)
    assert post(client, "delete", id=made) == {"seconds": LIMITS.undo}
    found = get(client, "list")
    assert found["total"] == 0
    assert [(entry["id"], entry["runs"]) for entry in found["deleted"]] == [(made, 2)]
    assert "errors" in get(client, "run", id=f"{made}-0")
    assert post(client, "undo", id=made) is None
    assert get(client, "list")["total"] == 2
    assert "time to undo is over" in post(client, "undo", id=made)["errors"][0]["message"]


def test_a_live_comparison_is_not_deleted(client: TestClient, supervisor: Supervisor) -> None:
    made = supervisor.submit(comparison(methods=1, steps=100_000))
    assert "stop it before deleting" in post(client, "delete", id=made)["errors"][0]["message"]
    assert get(client, "list")["total"] == 1
    supervisor.cancel(made)


def ready(client: TestClient, job: str) -> dict[str, Any]:
    until(lambda: get(client, "exported", job=job)["state"] != "waiting", 10)
    return get(client, "exported", job=job)


def test_an_export_is_made_behind_the_page_and_fetched(
    client: TestClient, supervisor: Supervisor, writer: Writer, tmp_path: Path
) -> None:
    run = f"{finished(supervisor)}-0"
    writer.go.clear()
    job = post(client, "export", id=run, format="native")["job"]
    assert get(client, "exported", job=job) == {"state": "waiting", "message": ""}
    assert client.get("/ranklab/runs/archive", params={"job": job}).status_code == 404
    assert post(client, "export", id=run, format="native")["job"] == job
    writer.go.set()
    assert ready(client, job)["state"] == "ready"
    answer = client.get("/ranklab/runs/archive", params={"job": job})
    assert f'filename="ranklab-{run}-native.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == [f"{run}-native/deep/weights.bin"]
    assert writer.asked == [(run, "native")]
    assert [path.name for path in (tmp_path / "exports").iterdir()] == [f"{job}.zip"]


def test_an_export_that_cannot_be_is_a_sentence(client: TestClient, supervisor: Supervisor) -> None:
    run = f"{finished(supervisor)}-0"
    found = ready(client, post(client, "export", id=run, format="peft")["job"])
    assert found["state"] == "failed" and "no such format" in found["message"]
    assert "must be one of" in post(client, "export", id=run, format="gguf")["errors"][0]["message"]
    stopped = supervisor.submit(comparison(methods=1, steps=100_000))
    assert "only a finished one" in post(client, "export", id=f"{stopped}-0", format="native")["errors"][0]["message"]
    supervisor.cancel(stopped)
    assert "errors" in get(client, "exported", job="../../etc")


def test_many_exports_wait_in_a_bounded_queue_and_old_ones_go(tmp_path: Path) -> None:
    writer = Writer()
    writer.go.clear()
    exports = Exports(tmp_path / "exports", writer)
    jobs = [exports.begin(f"run-{number}", "native") for number in range(MOST_WAITING)]
    with pytest.raises(Refused):
        exports.begin("one-more", "native")
    writer.go.set()
    until(lambda: all(exports.job(job).state == "ready" for job in jobs), 10)
    exports.sweep()
    assert list((tmp_path / "exports").iterdir()) == []
    with pytest.raises(InputError):
        exports.job(jobs[0])
    exports.close()


def test_the_command_says_why_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"^id is 'zzzzzzzz'; there is no comparison or run with this id\.$"):
        ExportCommand(Commands(tmp_path))("zzzzzzzz-0", "native", tmp_path / "out")


def test_ten_thousand_runs_open_and_filter_in_time(tmp_path: Path, writer: Writer) -> None:
    """Bars: 1 s and 0.3 s for what the visitor sees; this is the server's part of it."""
    home = tmp_path / "home"
    home.mkdir()
    assert fill(home / "store.sqlite") == 10_000
    with supervise(home, "thread", limits=LIMITS) as supervisor:
        service = RunsService(supervisor, Exports(home / "x", writer), Pushes(home / "y", no_push))
        client = TestClient(Starlette(routes=runs_routes(service)))
        started = time.perf_counter()
        assert get(client, "list", choices=1, limit=25)["total"] == 10_000
        assert time.perf_counter() - started < 1 * SLACK
        for query in ({"search": "capaboost sent"}, {"state": "failed", "sort": "score"}, {"task": "entailment"}):
            started = time.perf_counter()
            assert 0 < get(client, "list", limit=25, **query)["total"] < 10_000
            assert time.perf_counter() - started < 0.3 * SLACK
        assert len(supervisor.recent(30)) == 30
