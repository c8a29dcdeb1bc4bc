"""Who may push a run from the page: the Runs tab's addresses over a made-up push, with and without a sign-in."""

from __future__ import annotations

import importlib.machinery
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.testclient import TestClient

from peft_core.runs import Supervisor
from tests.runs.support import comparison, supervise, until
from ui.child import CommandFailed
from ui.exports import Exports
from ui.logins import LIBRARIES, OAUTH
from ui.pushes import Pushes, Wanted, readable
from ui.runs_routes import runs_routes
from ui.runs_service import RunsService

TOKEN, OTHER = "hf_" + "visitorvisitor", "hf_" + "othervisitor"
SAME = {"Sec-Fetch-Site": "same-origin"}


class Pushed:
    """Pushes when it is let."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), []
        self.go.set()

    def __call__(self, wanted: Wanted, token: str, scratch: Path) -> str:
        assert scratch.is_dir() and not list(scratch.iterdir())
        self.asked.append((wanted, token))
        assert self.go.wait(10)
        if wanted.kind == "merged":
            raise CommandFailed("Not pushed: the token may not write there.")
        if wanted.kind == "peft":
            raise ValueError("not foreseen")
        return f"https://hub.example/{wanted.repository}"


@pytest.fixture
def pushed() -> Pushed:
    return Pushed()


@pytest.fixture
def pushes(pushed: Pushed, tmp_path: Path) -> Iterator[Pushes]:
    made = Pushes(tmp_path / "pushes", pushed)
    yield made
    pushed.go.set()
    made.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with supervise(tmp_path / "home", "thread", server=True) as made:
        yield made


@pytest.fixture
def service(supervisor: Supervisor, pushes: Pushes, tmp_path: Path) -> RunsService:
    return RunsService(supervisor, Exports(tmp_path / "exports", lambda *_: None), pushes)


class Sessions:
    """Puts a visitor's session where Gradio's middleware puts it."""

    def __init__(self, app: Any) -> None:
        self.app, self.session = app, {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope | {"session": dict(self.session)}, receive, send)


@pytest.fixture
def sessions(service: RunsService) -> Sessions:
    return Sessions(Starlette(routes=runs_routes(service)))


@pytest.fixture
def client(sessions: Sessions) -> TestClient:
    return TestClient(sessions)


@pytest.fixture
def run(supervisor: Supervisor) -> str:
    made = supervisor.submit(comparison(methods=1, steps=5))
    assert supervisor.wait(made, 20)
    return f"{made}-0"


def way(client: TestClient, run: str, headers: dict[str, str] = SAME) -> dict[str, str]:
    return client.get("/ranklab/runs/run", params={"id": run}, headers=headers).json()["push"]


def push(client: TestClient, run: str, headers: dict[str, str] = SAME, **body: Any) -> dict[str, Any]:
    asked = {"id": run, "format": "native", "repository": "me/mine", **body}
    return client.post("/ranklab/runs/push", json=asked, headers=headers).json()


def said(answer: dict[str, Any]) -> str:
    [error] = answer["errors"]
    return error["message"]


def outcome(client: TestClient, job: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def over() -> bool:
        found.update(client.get("/ranklab/runs/pushed", params={"job": job}).json())
        return found["state"] != "waiting"

    until(over, 10)
    return found


def signed_in(sub: str, token: str, seconds: float = 600) -> dict[str, Any]:
    user = {"sub": sub, "preferred_username": f"name-of-{sub}"}
    return {"oauth_info": {"access_token": token, "expires_at": time.time() + seconds, "userinfo": user}}


def on_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"RANKLAB_PUBLIC": "1", "SYSTEM": "spaces", "SPACE_ID": "o/s", **dict.fromkeys(OAUTH, "x")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ui.logins.LIBRARIES", ())


def test_a_push_with_a_typed_token_or_none(client: TestClient, run: str, pushed: Pushed, pushes: Pushes) -> None:
    assert way(client, run, {}) == {"way": "token", "name": ""}
    for token in (f" {TOKEN} ", ""):
        found = outcome(client, push(client, run, {}, token=token)["job"])
        assert found == {"state": "ready", "message": "", "address": "https://hub.example/me/mine"}
    assert pushed.asked == [
        (Wanted(run, "native", "me/mine", True), TOKEN),
        (Wanted(run, "native", "me/mine", True), ""),
    ]
    outcome(client, push(client, run, existing=True)["job"])
    assert pushed.asked[-1][0].new is False
    assert TOKEN not in repr(vars(pushes)) and not list(pushes._folder.iterdir())


def test_what_fails_is_a_sentence_without_the_token(client: TestClient, run: str, pushed: Pushed) -> None:
    found = outcome(client, push(client, run, format="merged", token=TOKEN)["job"])
    assert (found["state"], found["message"]) == ("failed", "Not pushed: the token may not write there.")
    found = outcome(client, push(client, run, format="peft", token=TOKEN)["job"])
    assert (found["state"], found["message"]) == ("failed", "The push failed; the server's log says why.")
    pushed.asked.clear()
    assert "must be one of" in said(push(client, run, format="gguf"))
    for repository in ("mine", "me/mine@main", "--json", "a/b/c", "x" * 150_000, "me/\0"):
        refusal = said(push(client, run, repository=repository))
        assert refusal.startswith("repository is") and "owner/name" in refusal and len(refusal) < 200
    refusal = said(push(client, run, token=f"{TOKEN}\nHF_TOKEN"))
    assert "must be a token" in refusal and TOKEN not in refusal
    assert "errors" in push(client, "zzzzzzzz-0")
    assert client.get("/ranklab/runs/pushed", params={"job": "../x"}).json()["errors"]
    assert pushed.asked == []


def test_a_visitor_has_one_push_at_a_time(client: TestClient, run: str, pushed: Pushed) -> None:
    pushed.go.clear()
    job = push(client, run)["job"]
    assert "of yours is under way" in said(push(client, run))
    pushed.go.set()
    assert outcome(client, job)["state"] == "ready"
    assert "job" in push(client, run)


def test_another_sites_page_pushes_nothing(client: TestClient, run: str, pushed: Pushed) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
    ):
        assert "Only this page" in said(push(client, run, headers))
    assert client.post("/ranklab/runs/push", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert pushed.asked == []
    assert "job" in push(client, run, {"Origin": "http://testserver"})


def test_a_public_page_without_sign_in_offers_none(
    client: TestClient, sessions: Sessions, run: str, pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions.session = signed_in("1", TOKEN)
    on_a_space(monkeypatch)
    monkeypatch.delenv("OAUTH_CLIENT_SECRET")
    assert way(client, run) == {"way": "none", "name": ""}
    for token in ("", TOKEN):
        assert "not offered here" in said(push(client, run, token=token))
    assert pushed.asked == []


def test_on_a_public_page_only_the_visitors_own_sign_in_pushes(
    client: TestClient, sessions: Sessions, run: str, pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_space(monkeypatch)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "ownerownerowner")
    for session in ({}, {"oauth_info": "x"}, {"oauth_info": {"access_token": TOKEN}}, signed_in("1", TOKEN, -1)):
        sessions.session = session
        assert way(client, run) == {"way": "sign-in", "name": ""}
        assert "Sign in" in said(push(client, run))
    sessions.session = signed_in("1", TOKEN)
    assert way(client, run) == {"way": "account", "name": "name-of-1"}
    assert way(client, run, {"Sec-Fetch-Site": "cross-site"})["name"] == "", "other sites do not hear who it is"
    assert "takes no tokens" in said(push(client, run, token=OTHER))
    assert "Only this page" in said(push(client, run, {}))
    assert pushed.asked == []
    pushed.go.clear()
    first = push(client, run)["job"]
    assert "of yours is under way" in said(push(client, run))
    sessions.session = signed_in("2", OTHER)
    second = push(client, run)["job"]
    pushed.go.set()
    assert [outcome(client, job)["state"] for job in (first, second)] == ["ready", "ready"]
    assert sorted(token for _, token in pushed.asked) == sorted([TOKEN, OTHER])


def test_gradios_sign_in_reaches_our_addresses(service: RunsService, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio's real routes, session and cookie; the Hub's side of the handshake is made up."""
    pytest.importorskip("itsdangerous")
    from gradio.routes import App

    from ui.launching import build

    class Provider:
        async def authorize_redirect(self, _request: Any, uri: str) -> RedirectResponse:
            return RedirectResponse(uri)

        async def authorize_access_token(self, _request: Any) -> dict[str, Any]:
            return signed_in("7", TOKEN)["oauth_info"]

    class OAuth:
        huggingface = Provider()

        def register(self, **_: Any) -> None: ...

    stand_ins = {"base_client.errors": {"MismatchingStateError": KeyError}, "starlette_client": {"OAuth": OAuth}}
    for name in ("authlib", "authlib.integrations", "authlib.integrations.base_client"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    for name, content in stand_ins.items():
        monkeypatch.setitem(sys.modules, f"authlib.integrations.{name}", types.SimpleNamespace(**content))
    on_a_space(monkeypatch)
    monkeypatch.setattr("ui.logins.LIBRARIES", LIBRARIES)
    for name in OAUTH:
        monkeypatch.setattr(f"gradio.oauth.{name}", "x")
    app = App.create_app(build(), app_kwargs={"routes": runs_routes(service)})
    client = TestClient(app, base_url="https://space.example", follow_redirects=False)
    assert way(client, run) == {"way": "sign-in", "name": ""}
    back = "/?a=1#tab=runs&run=x"
    answer = client.get("/login/huggingface", params={"_target_url": back})
    answer = client.get(answer.headers["location"])
    assert answer.headers["location"] == back and "oauth_info" not in answer.headers["set-cookie"]
    assert way(client, run) == {"way": "account", "name": "name-of-7"}
    assert outcome(client, push(client, run)["job"])["state"] == "ready"
    client.get("/logout")
    assert way(client, run) == {"way": "sign-in", "name": ""}


def test_a_sentence_of_the_command_line_is_made_the_pages() -> None:
    assert readable("push_to_hub is 'me/mine'; the token may not write there.") == (
        "Not pushed: the token may not write there."
    )
    assert readable("format is 'peft'; no.") == "format is 'peft'; no."
