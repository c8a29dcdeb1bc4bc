"""A push from the Runs tab, whole: page, process, loopback Hub. The token is nowhere but in the requests."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

import psutil
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from peft_core.runs import Supervisor
from tests.hub_server import Fault, HubServer
from tests.runs.support import until
from ui.child import Commands
from ui.exports import Exports
from ui.pushes import PushCommand, Pushes, Wanted
from ui.runs_routes import runs_routes
from ui.runs_service import RunsService

TOKEN, STORED, BAD = "hf_" + "typedtypedtyped", "hf_" + "storedstored", "hf_" + "unknownunknown"
LORA = ("lora:rank=8", 0)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer(tmp_path / "hub", writers={TOKEN: "me", STORED: "owner"}) as server:
        own = server.environment(tmp_path / "hf") | {"HF_HUB_OFFLINE": "0"}
        for name in set(os.environ) - set(own):
            monkeypatch.delenv(name)
        for name, value in own.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def pushes(hub, store):
    commands = Commands(store.home)
    made = Pushes(store.home / "pushes", PushCommand(commands))
    yield made
    made.close()
    commands.close()


def leaves_no_trace(tmp_path, *secrets):
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert not [secret for secret in secrets if secret.encode() in path.read_bytes()], path


def test_a_typed_token_pushes_and_is_nowhere(hub, store, pushes, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    hub.faults.append(Fault("/api/repos/create", delay=1.5))
    run, seen = store.runs[LORA], []
    with Supervisor(store.home, executor="thread") as supervisor:
        service = RunsService(supervisor, Exports(tmp_path / "exports", lambda *_: None), pushes)
        client = TestClient(Starlette(routes=runs_routes(service)))
        body = {"id": run, "format": "native", "repository": "me/mine", "token": TOKEN}
        job = client.post("/ranklab/runs/push", json=body).json()["job"]

        def over() -> bool:
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    seen.append(" ".join(child.cmdline()) + str(child.environ()))
            return client.get("/ranklab/runs/pushed", params={"job": job}).json()["state"] != "waiting"

        until(over, 60)
        answer = client.get("/ranklab/runs/pushed", params={"job": job})
    assert answer.json() == {"state": "ready", "message": "", "address": f"{hub.url}/me/mine"}
    assert {"README.md", "adapter.safetensors", "adapter.json"} <= set(hub.files("models", "me/mine"))
    assert hub.commit_messages == ["Add lora:rank=8 (native)"]
    assert any("--push-to-hub me/mine" in line for line in seen)
    assert not [line for line in seen if TOKEN in line]
    assert TOKEN not in caplog.text + answer.text + repr(vars(pushes))
    assert not list((store.home / "pushes").iterdir())
    leaves_no_trace(tmp_path, TOKEN)


def test_each_failure_is_one_sentence_and_an_empty_token_is_this_machines_login(hub, store, pushes, tmp_path, caplog):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(STORED)
    (hub.folder("models", "me/taken")).mkdir(parents=True)
    hub.faults.append(Fault("/api/models/me/busy/commit", status=503, times=99))
    run = store.runs[LORA]
    asked = {
        "Not pushed: there is a repository of this name already.": ("me/taken", TOKEN, True),
        "Not pushed: the Hub does not accept the token.": ("me/mine", BAD, True),
        "Not pushed: the token may not write there.": ("you/mine", TOKEN, True),
        "Not pushed: the Hub is too busy to answer (status 503); nothing more was tried.": ("me/busy", TOKEN, True),
        "": ("owner/mine", "", False),
    }
    jobs = {
        sentence: pushes.begin(Wanted(run, "native", repository, new), token, str(place))
        for place, (sentence, (repository, token, new)) in enumerate(asked.items())
    }
    until(lambda: all(pushes.job(job).state != "waiting" for job in jobs.values()), 120)
    assert [pushes.job(job).message for job in jobs.values()] == list(asked)
    assert pushes.job(jobs[""]).address == f"{hub.url}/owner/mine"
    assert not list(hub.folder("models", "me/taken").iterdir())
    (tmp_path / "hf" / "token").unlink()
    assert not [secret for secret in (TOKEN, BAD, STORED) if secret in caplog.text]
    leaves_no_trace(tmp_path, TOKEN, BAD, STORED)


@pytest.mark.parametrize("token", ["", STORED])
def test_a_public_page_never_uses_its_owners_login(hub, store, pushes, tmp_path, monkeypatch, token):
    monkeypatch.setenv("RANKLAB_PUBLIC", "1")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(STORED)
    job = pushes.begin(Wanted(store.runs[LORA], "native", "owner/mine", True), token, "visitor")
    until(lambda: pushes.job(job).state != "waiting", 60)
    assert "login" in pushes.job(job).message and pushes.job(job).state == "failed"
    assert hub.requests == []
