"""What the page asks for and does, over a supervisor made by hand."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from peft_core.cli import build_parser
from peft_core.records import InputError, View
from peft_core.report.reproduction import MISSING, shown
from tests.report.reproduced import reproduced
from tests.report.sample import METHODS, METRIC, sample_spec, sample_view
from tests.ui.stand_in import StandInEngine, StandInRuns
from ui.engine import Warmup
from ui.form import Form, FormError, form_from_spec
from ui.routes import LARGEST_BODY, STATIC, routes
from ui.service import EXAMPLE, Service
from ui.uploads import Uploads


def shipped() -> View:
    view = sample_view()
    return view.model_copy(update={"comparison": view.comparison.model_copy(update={"origin": "shipped"})})


@pytest.fixture
def runs() -> StandInRuns:
    return StandInRuns(pause=0.001)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "home" / "uploads", file_limit=10_000)


@pytest.fixture
def service(runs: StandInRuns, uploads: Uploads) -> Service:
    return Service(runs, StandInEngine(), shipped(), uploads)


@pytest.fixture
def client(service: Service, uploads: Uploads) -> TestClient:
    return TestClient(Starlette(routes=routes(service, Warmup(StandInEngine()), uploads)))


def test_a_new_install_shows_the_shipped_example(service: Service) -> None:
    shown = service.view(None)
    assert (shown["id"], shown["shipped"], shown["ended"]) == (EXAMPLE, True, True)
    assert len(shown["table"]) == 2
    assert shown["guides"][shown["labels"][1]["label"]] == {"r = 4": 4, "d·r = 8": 8}


def test_without_anything_to_show_the_form_still_has_a_start(runs: StandInRuns, uploads: Uploads) -> None:
    shown = Service(runs, StandInEngine(), None, uploads).view(None)
    assert shown["id"] is None
    assert len(shown["form"]["methods"]) == 2


def test_a_comparison_under_way_is_what_a_returning_visitor_sees(service: Service, runs: StandInRuns) -> None:
    runs.pause = 0.05
    first = service.start(form_from_spec(sample_spec(steps=1000)))
    assert service.view(None)["id"] == first
    service.stop(first)
    assert service.view(None)["state"] == "cancelled"
    assert [entry["id"] for entry in service.recent()] == [first, EXAMPLE]


def test_a_poll_brings_only_what_is_new(service: Service, runs: StandInRuns) -> None:
    started = service.start(form_from_spec(sample_spec(steps=20)))
    while not service.view(started)["ended"]:
        time.sleep(0.01)
    whole = service.view(started)
    some = service.view(started, whole["seq"] - 3)
    none = service.view(started, whole["seq"])
    assert sum(len(run["step"]["step"]) for run in whole["points"].values()) == 80
    assert "spec" not in some and some["table"]
    assert none["points"] == {} and none["table"] is None


def test_again_queues_the_same_comparison(service: Service, runs: StandInRuns) -> None:
    started = service.again(EXAMPLE)
    assert runs.rows[started].spec == shipped().comparison.spec


def test_again_on_an_adapter_that_came_without_its_task_is_one_sentence(service: Service, runs: StandInRuns) -> None:
    started = service.again(EXAMPLE)
    row = runs.rows[started]
    spec = row.spec.model_copy(update={"task": "theirs"})
    runs.rows[started] = row.model_copy(update={"spec": spec, "environment": {"imported": "theirs"}})
    with pytest.raises(FormError, match="an imported adapter came with this name alone") as caught:
        service.again(started)
    assert caught.value.errors[0].field == "task" and list(runs.rows) == [started]


def test_a_refused_form_starts_nothing(service: Service, runs: StandInRuns) -> None:
    form = form_from_spec(sample_spec()).model_copy(update={"training": {"batch_size": "4001"}})
    with pytest.raises(FormError) as caught:
        service.start(form)
    assert caught.value.errors[0].field == "training.batch_size"
    assert runs.rows == {}


@pytest.mark.parametrize(
    "kind, start", [("csv", "label,"), ("json", "{"), ("md", "| method"), ("tex", "\\begin"), ("html", "<!doctype")]
)
def test_downloads(service: Service, kind: str, start: str) -> None:
    name, _, text = service.download(EXAMPLE, kind)
    assert name.endswith("." + kind)
    assert text.startswith(start)
    with pytest.raises(InputError):
        service.download(EXAMPLE, "exe")


def test_the_json_download_is_the_results_document(service: Service) -> None:
    assert json.loads(service.download(EXAMPLE, "json")[2])["comparison"]["metric"] == METRIC


# --- over HTTP ---


def test_a_bad_form_is_answered_with_its_fields(client: TestClient) -> None:
    answer = client.post("/ranklab/start", json={"model": "m", "task": "t", "seeds": "x", "methods": [{"id": "lora"}]})
    assert [error["field"] for error in answer.json()["errors"]] == ["seeds"]


@pytest.mark.parametrize("body", [{"methods": "x"}, {"methods": [3]}, {"training": [1]}, {"seeds": {"a": 1}}, {}])
def test_a_malformed_body_is_refused(client: TestClient, body: object) -> None:
    assert client.post("/ranklab/start", json=body).json()["errors"]


def test_only_json_of_a_bounded_size_is_read(client: TestClient) -> None:
    assert client.post("/ranklab/start", content="{}", headers={"content-type": "text/plain"}).status_code == 415
    json_type = {"content-type": "application/json"}
    assert client.post("/ranklab/start", content="{", headers=json_type).status_code == 400
    assert client.post("/ranklab/start", content=" " * (LARGEST_BODY + 1), headers=json_type).status_code == 413


def test_an_unknown_comparison_is_refused_in_a_sentence(client: TestClient) -> None:
    answer = client.get("/ranklab/view", params={"id": "nothing"})
    assert answer.json()["errors"][0]["message"].endswith(".")


def test_a_start_is_seen_by_every_viewer(client: TestClient) -> None:
    started = client.post("/ranklab/start", json=form_from_spec(sample_spec(steps=5)).model_dump()).json()["id"]
    assert client.get("/ranklab/view").json()["id"] == started
    assert client.post("/ranklab/stop", json={"id": started}).status_code == 200


def test_files_come_from_this_server_only(client: TestClient) -> None:
    assert client.get("/ranklab/plotly.min.js").text.startswith("/**")
    for file in STATIC.iterdir():
        text = client.get(f"/ranklab/static/{file.name}").text
        outside = [part for part in text.split("http")[1:] if not part.startswith("://www.w3.org/")]
        assert not [part[:40] for part in outside if part.startswith(("://", "s://"))]


def test_static_files_cannot_be_left(client: TestClient) -> None:
    assert client.get("/ranklab/static/..%2fservice.py").status_code == 404


# --- data of one's own ---

BYTES = {"content-type": "application/octet-stream"}
TABLE = b"text,label\na,1\nb,0\n"


def send(client: TestClient, name: str = "t.csv", content: bytes = TABLE) -> dict[str, Any]:
    answer = client.post("/ranklab/upload", params={"name": name}, content=content, headers=BYTES)
    assert answer.status_code == 200
    return answer.json()


def test_an_upload_can_be_looked_at_and_started(client: TestClient, runs: StandInRuns, uploads: Uploads) -> None:
    sent = send(client)
    assert Path(sent["task"]).read_bytes() == TABLE and sent["bytes"] == len(TABLE)
    look = {"model": "tiny-text", "task": sent["task"], "task_options": {"text": "2024", "drop_bad": "true"}}
    found = client.post("/ranklab/preview", json={**look, "max_length": "32"}).json()
    assert found["asked"]["options"] == {"text": "2024", "drop_bad": True}, "a column's name stays text"
    assert found["asked"]["max_length"] == 32 and found["lengths"] == {"text": None}
    words = shlex.split(found["command"])
    assert build_parser().parse_args(words[3:]).task == sent["task"]
    form = {"model": "tiny-text", "task": sent["task"], "seeds": "0", "methods": [{"id": "lora"}]}
    started = client.post("/ranklab/start", json=form).json()["id"]
    assert runs.rows[started].spec.task == sent["task"]
    assert client.get("/ranklab/recent").json()[0]["title"].startswith("t.csv on tiny-text")


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""]
)
def test_a_form_of_another_site_cannot_upload(client: TestClient, uploads: Uploads, kind: str) -> None:
    answer = client.post("/ranklab/upload?name=t.csv", content=TABLE, headers={"content-type": kind})
    assert answer.status_code == 415
    assert not uploads.folder.exists()


def test_a_bad_upload_is_one_sentence(client: TestClient, uploads: Uploads) -> None:
    for name, content in (("t.exe", TABLE), ("", TABLE), ("t.csv", b""), ("t.csv", b"x" * 10_001)):
        errors = send(client, name, content)["errors"]
        assert len(errors) == 1 and errors[0]["message"].endswith(".")
    assert not list(uploads.folder.glob("*"))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"task": 3},
        {"task": ""},
        {"task": " "},
        {"task": "x" * 501},
        {"task": "x", "model": []},
        {"task": "x", "task_options": [1]},
        {"task": "x", "task_options": {"text": {"a": 1}}},
        {"task": "x", "max_length": "1"},
        {"task": "x", "max_length": "many"},
        {"task": "x", "max_length": "1e400"},
    ],
)
def test_a_malformed_look_is_refused_in_one_sentence(client: TestClient, body: object) -> None:
    errors = client.post("/ranklab/preview", json=body).json()["errors"]
    assert len(errors) == 1 and errors[0]["message"].endswith(".") and "\n" not in errors[0]["message"]


def test_a_look_is_json_of_a_bounded_size(client: TestClient) -> None:
    json_type = {"content-type": "application/json"}
    assert client.post("/ranklab/preview", content="{}", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/ranklab/preview", content="[" * 100_000, headers=json_type).status_code == 400
    assert client.post("/ranklab/preview", content=" " * (LARGEST_BODY + 1), headers=json_type).status_code == 413
    assert client.get("/ranklab/preview").status_code == 405
    assert client.get("/ranklab/upload").status_code == 405


def test_what_the_project_measured_is_shown_or_said_to_be_missing(client: TestClient, monkeypatch) -> None:
    monkeypatch.setattr("ui.service.shipped_reproduction", lambda: None)
    assert client.get("/ranklab/measured").json() == {"missing": MISSING}
    monkeypatch.setattr("ui.service.shipped_reproduction", reproduced)
    found = client.get("/ranklab/measured").json()
    assert found == shown(reproduced())
    assert found["groups"][0]["name"] == "main"


def test_presets_and_benchmarks_are_lists(client: TestClient) -> None:
    assert client.get("/ranklab/benchmarks").json()[0]["id"] == "glue/cola"
    assert client.get("/ranklab/presets", params={"task": "glue/cola"}).json()[0]["name"] == "paper/model/lora"
    assert client.get("/ranklab/presets", params={"task": "../x" * 1000}).json() == []


HIDDEN = ["/etc/passwd", "../secret.csv", "table.csv", "~/x.csv", "acceptability+/etc/passwd", "rank_probe+x.csv"]


@pytest.mark.parametrize("task", HIDDEN)
def test_a_public_page_opens_no_file_of_the_server(
    client: TestClient, runs: StandInRuns, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    sent = send(client)["task"]
    form = {"model": "tiny-text", "seeds": "0", "methods": [{"id": "lora"}]}
    monkeypatch.setenv("RANKLAB_PUBLIC", "1")
    for path, body in (("preview", {"task": task}), ("start", {**form, "task": task})):
        errors = client.post(f"/ranklab/{path}", json=body).json()["errors"]
        assert errors[0]["field"] == "task" and "public" in errors[0]["message"]
    assert runs.rows == {}
    for allowed in ("acceptability", "glue/cola", "hub:owner/name", "acceptability+rank_probe", sent):
        assert "columns" in client.post("/ranklab/preview", json={"task": allowed}).json()
    assert client.get("/ranklab/catalogue").json()["public"] is True


def test_uploads_are_not_served(client: TestClient, uploads: Uploads) -> None:
    sent = send(client)["task"]
    for address in (f"/ranklab/static/{sent}", f"/ranklab/static/../../{sent}", f"/file={sent}", sent):
        assert client.get(address).status_code == 404


def locked_form(service: Service, **changes: str) -> Form:
    values = service.view(None)["form"] | {"lock": "rank"} | changes
    return Form.model_validate(values)


def test_a_budget_lock_says_what_it_makes_of_each_row(service: Service) -> None:
    assert [row and row["lock"] for row in service.budget(locked_form(service))] == [f"{m}: moved." for m in METHODS]
    assert [row and row["lock"] for row in service.budget(locked_form(service, lock=""))] == [None, None]
    refused = service.budget(locked_form(service, lock="weight"))
    assert all(row and "lock is 'weight'" in row["lock"] for row in refused)


def test_what_starts_under_a_lock_is_what_it_made_and_what_was_asked(service: Service, runs: StandInRuns) -> None:
    spec = runs.rows[service.start(locked_form(service, lock_to="1"))].spec
    assert spec.lock is not None and spec.lock.to == METHODS[1]
    assert [str(method) for method in spec.lock.asked] == list(METHODS)
    assert [method.options["rank"] for method in spec.methods] == [1, 1]
    form = form_from_spec(spec)
    assert [row.options["rank"] for row in form.methods] == ["4", "4"]
    assert (form.lock, form.lock_to) == ("rank", "1")


@pytest.mark.parametrize("change", [{"lock": "weight"}, {"lock_to": "2"}, {"lock_to": "x"}])
def test_a_lock_that_cannot_be_is_told_at_its_field(service: Service, runs: StandInRuns, change: dict) -> None:
    with pytest.raises(FormError) as refusal:
        service.start(locked_form(service, **change))
    assert [error.field for error in refusal.value.errors] == list(change)
    assert not runs.rows


def test_resampled_scores_stay_on_the_server(service: Service) -> None:
    shown = service.view(None)
    assert "resampled" not in json.dumps(shown)
    assert shown["pareto"]["fronts"] and shown["notes"]
