"""The Try it tab's service and addresses over a real store, and the models' process; the models are made up."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from peft_core.runs import Limits, Refused, Store, Supervisor
from tests.runs.support import comparison, supervise, until
from ui.answering import AnsweringProcess
from ui.form import FieldError, FormError
from ui.tryit_routes import tryit_routes
from ui.tryit_service import KEPT_TABLES, LARGEST_PICTURE, LONGEST_TEXT, Rows, TryService, page_of
from ui.uploads import Uploads

LIMITS = Limits(beat=2.5, stall=30.0, stop=2.0, spare=0.0, undo=600.0)


def row(number: int, truth: str, *answers: str, text: str = "some words") -> dict[str, Any]:
    right = [answer == truth for answer in answers]
    made = {"row": number, "truth": truth, "answers": list(answers), "right": right, "input": {"text": text}}
    return made | {"confidence": [0.5] * len(answers), "spread": len(set(answers)) - 1}


TABLE = {
    "problem": "classification",
    "looked": 9,
    "differ": 3,
    "right": [5, 6],
    "rows": [row(2, "yes", "yes", "no"), row(5, "no", "yes", "no", text="Rare"), row(7, "yes", "no", "yes")],
}


class Models:
    """Answers what it was told to, and writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.go = threading.Event()
        self.go.set()
        self.refuse = ""

    def ask(self, command: Mapping[str, Any], told: Any = None, patience: float | None = 1.0) -> Any:
        self.asked.append(dict(command))
        if command["kind"] == "table":
            told(3, 9)
            assert self.go.wait(10)
        if self.refuse:
            raise FormError([FieldError("image", self.refuse)])
        if command["kind"] == "describe":
            return {"tasks": ["t"], "task": "t", "problem": "classification", "roles": ["text"]}
        return TABLE if command["kind"] == "table" else {"answers": [{"run": run} for run in command["runs"]]}

    def close(self) -> None: ...


class Engine:
    def task_origin(self, task: str) -> str:
        return "local"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with supervise(tmp_path / "home", "thread", limits=LIMITS, server=True) as made:
        yield made


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def client(supervisor: Supervisor, models: Models, tmp_path: Path) -> Iterator[TestClient]:
    service = TryService(supervisor, models, Engine(), Uploads(tmp_path / "uploads"))
    yield TestClient(Starlette(routes=tryit_routes(service)))
    models.go.set()
    service.close()


def get(client: TestClient, path: str, **query: Any) -> Any:
    return client.get(f"/ranklab/tryit/{path}", params=query).json()


def post(client: TestClient, path: str, **body: Any) -> Any:
    return client.post(f"/ranklab/tryit/{path}", json=body).json()


def sent(client: TestClient, content: bytes, **query: Any) -> Any:
    headers = {"content-type": "application/octet-stream"}
    return client.post("/ranklab/tryit/picture", params=query, content=content, headers=headers).json()


def message(found: Any) -> str:
    return found["errors"][0]["message"]


def finished(supervisor: Supervisor, *, keep: bool = True, **settings: Any) -> str:
    """A finished comparison; the stand-in trainer leaves no weights, so they are put there."""
    made = supervisor.submit(comparison(**{"methods": 2, "steps": 4, **settings}))
    assert supervisor.wait(made, 20)
    for run in supervisor.view(made).runs if keep else ():
        folder = supervisor.folder(made) / run.run / "adapter"
        folder.mkdir(parents=True)
        (folder / "adapter.json").write_text("{}")
    return made


def test_the_menu_offers_what_has_weights_and_says_why_there_is_nothing(
    client: TestClient, supervisor: Supervisor
) -> None:
    assert "Start one in the Compare tab" in get(client, "menu")["nothing"]
    live = supervisor.submit(comparison(methods=1, steps=100_000))
    found = get(client, "menu")
    assert "is being trained" in found["nothing"] and found["live"]
    supervisor.cancel(live)
    first = finished(supervisor)
    finished(supervisor, keep=False)
    found = get(client, "menu")
    assert ([entry["id"] for entry in found["comparisons"]], found["nothing"]) == ([first], "")
    second = finished(supervisor)
    assert [entry["id"] for entry in get(client, "menu")["comparisons"]] == [second, first]
    supervisor.hide(second)
    assert [entry["id"] for entry in get(client, "menu", more=second)["comparisons"]] == [first]


def test_one_run_a_method_of_one_seed_is_asked(client: TestClient, supervisor: Supervisor, models: Models) -> None:
    made = finished(supervisor, seeds=2)
    (supervisor.folder(made) / f"{made}-3" / "adapter" / "adapter.json").unlink()
    found = get(client, "described", comparison=made)
    assert (found["seed"], found["seeds"]) == (0, [0, 1])
    assert [run["label"] for run in found["runs"]] == ["lora:rank=1", "lora:rank=2"] and found["missing"] == []
    assert found["runs"][0]["look"] != found["runs"][1]["look"]
    other = get(client, "described", comparison=made, seed=1)
    assert ([run["label"] for run in other["runs"]], other["missing"]) == (["lora:rank=1"], ["lora:rank=2"])
    assert "one of 0, 1" in message(get(client, "described", comparison=made, seed=7))
    answers = post(client, "ask", comparison=made, seed=0, task="t", visitor="v", input={"text": "hello"})["answers"]
    assert [one["run"] for one in answers] == [run["run"] for run in found["runs"]]
    assert models.asked[-1]["input"] == {"text": "hello"} and models.asked[-1]["visitor"] == "v"


def test_bad_input_is_one_sentence_and_reaches_no_model(
    client: TestClient, supervisor: Supervisor, models: Models
) -> None:
    made = finished(supervisor)
    for given in ({"text": " "}, {"text": "x" * (LONGEST_TEXT + 1)}, {"path": "/etc/passwd"}, {"image": "/etc/passwd"}):
        [error] = post(client, "ask", comparison=made, input=given)["errors"]
        assert error["message"].endswith(".") and len(error["message"]) < 300
    for name in ("example", "zzzzzzzz", "../../etc", ""):
        assert message(post(client, "ask", comparison=name, input={"text": "x"})).endswith(".")
    assert "choose a picture" in message(sent(client, b"", comparison=made))
    assert "may have 10,485,760 bytes" in message(sent(client, b"x" * (LARGEST_PICTURE + 1), comparison=made))
    assert client.post("/ranklab/tryit/picture", content=b"x", headers={"content-type": "image/png"}).status_code == 415
    assert models.asked == []
    models.refuse = "It is broken."
    assert sent(client, b"GIF", comparison=made)["errors"] == [{"field": "image", "message": "It is broken."}]
    models.refuse = ""
    assert len(sent(client, b"\x89PNG", comparison=made, drawn=1)["answers"]) == 2
    assert models.asked[-1]["input"] == {"image": "iVBORw=="} and models.asked[-1]["drawn"] is True


def test_the_table_is_made_once_and_paged(client: TestClient, supervisor: Supervisor, models: Models) -> None:
    made = finished(supervisor)
    assert get(client, "table", comparison=made) == {"state": "none"}
    models.go.clear()
    for _ in range(2):
        assert post(client, "begin", comparison=made) is None
    until(lambda: get(client, "table", comparison=made).get("done") == 3, 5)
    assert get(client, "table", comparison=made)["state"] == "working"
    models.go.set()
    until(lambda: get(client, "table", comparison=made)["state"] == "ready", 5)
    assert [command["kind"] for command in models.asked] == ["table"]
    found = get(client, "table", comparison=made, sort="truth", up=1, limit=2)
    assert ([one["row"] for one in found["rows"]], found["total"]) == ([5, 2], 3)
    assert found["truths"] == ["no", "yes"] and found["looked"] == 9
    assert "errors" in get(client, "table", comparison=made, sort="input; drop")
    supervisor.hide(made)
    assert "errors" in get(client, "table", comparison=made)


def test_rows_are_sorted_searched_and_filtered() -> None:
    def numbers(**asked: Any) -> list[int]:
        return [one["row"] for one in page_of(TABLE, Rows(**asked))["rows"]]

    assert numbers() == [2, 5, 7] and numbers(up=False) == [7, 5, 2]
    assert numbers(sort="1", up=True) == [2, 5, 7] and numbers(sort="0", up=True) == [7, 2, 5]
    assert numbers(search="RARE words") == [] and numbers(search="rare no") == [5]
    assert numbers(truth="yes") == [2, 7] and numbers(right=0) == [2] and numbers(right=1, alone=True) == [5, 7]
    assert numbers(right=9) == [] and numbers(offset=2, limit=1) == [7] and numbers(sort="9") == [2, 5, 7]


def test_tables_are_bounded_and_a_failed_one_can_be_asked_for_again(
    client: TestClient, supervisor: Supervisor, models: Models
) -> None:
    made = finished(supervisor)
    models.refuse = "Its rows are gone."
    post(client, "begin", comparison=made)
    until(lambda: get(client, "table", comparison=made)["state"] == "failed", 5)
    assert get(client, "table", comparison=made)["message"] == "Its rows are gone."
    models.refuse = ""
    post(client, "begin", comparison=made)
    until(lambda: get(client, "table", comparison=made)["state"] == "ready", 5)
    for task in range(KEPT_TABLES + 1):
        post(client, "begin", comparison=made, task=str(task))
        until(lambda task=task: get(client, "table", comparison=made, task=str(task))["state"] == "ready", 5)
    assert get(client, "table", comparison=made)["state"] == "none", "the one used longest ago is gone"
    models.go.clear()
    for task in range(20, 20 + KEPT_TABLES):
        assert post(client, "begin", comparison=made, task=str(task)) is None
    assert "Many tables" in message(post(client, "begin", comparison=made, task="one more"))


def test_a_public_page_shows_no_rows_of_the_servers_files(
    client: TestClient, supervisor: Supervisor, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = finished(supervisor)
    monkeypatch.setenv("RANKLAB_PUBLIC", "1")
    for found in (post(client, "begin", comparison=made), get(client, "table", comparison=made)):
        assert "no rows of files" in message(found)
    found = get(client, "described", comparison=made)
    assert found["examples"] == [] and "no rows of files" in found["why_no_examples"]
    assert len(post(client, "ask", comparison=made, input={"text": "x"})["answers"]) == 2


def test_the_models_process_answers_refuses_and_comes_back(tmp_path: Path) -> None:
    """Of an empty store it can only refuse; that it ended in between is not noticed."""
    Store(tmp_path / "store.sqlite").close()
    process = AnsweringProcess(tmp_path)
    command = {"kind": "ask", "comparison": "zzzzzzzz", "runs": ["zzzzzzzz-0"], "task": None, "input": {"text": "x"}}
    try:
        for _ in range(2):
            with pytest.raises(FormError, match="there is no comparison or run with this id"):
                process.ask(command)
            assert process._started is not None
            process._started.process.kill()
            process._started.process.wait()
    finally:
        process.close()
    with pytest.raises(Refused, match="shutting down"):
        process.ask(command)
