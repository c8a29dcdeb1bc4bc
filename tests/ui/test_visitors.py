"""Who a visitor is, how much one may ask for, and what the guard lets through; without a server."""

from __future__ import annotations

import asyncio
import stat
import time
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from peft_core.records import ComparisonSpec, InputError, MethodSpec, TrainingConfig, public_mode
from peft_core.runs import Limits, Refused
from peft_core.runs.confinement import Confinement
from ui.form import FormError
from ui.guard import Guard, Rules
from ui.house import House
from ui.origins import is_foreign, is_known, names_of, origins_of
from ui.passwords import accounts_of
from ui.public_limits import PublicLimits, check_size
from ui.quotas import Rates, Tally
from ui.scrub import scrubbed
from ui.settings import Settings
from ui.visitors import COOKIE, Visitor, Visitors, address_of, cookie_header, current, key_of

KEY = b"k" * 32


def test_a_cookie_is_told_from_one_that_was_made_up() -> None:
    visitors = Visitors(KEY)
    visitor, value = visitors.read("", "192.0.2.1")
    assert not visitor.known
    again, same = visitors.read(value, "192.0.2.2")
    assert (again.id, again.known, same) == (visitor.id, True, value)
    assert again.address != visitor.address
    assert value.partition(".")[0] not in visitor.id
    for forged in (value[:-1], value + "0", value.partition(".")[0], "a.b", "é.x", "x" * 9999, f"{visitor.id}.x"):
        made, fresh = visitors.read(forged, "192.0.2.1")
        assert not made.known and made.id != visitor.id and fresh != forged
    assert Visitors(b"j" * 32).read(value, "192.0.2.1")[0].known is False


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    key = key_of(tmp_path)
    assert key_of(tmp_path) == key and len(key) == 32
    assert stat.S_IMODE((tmp_path / "visitors.key").stat().st_mode) == 0o600
    (tmp_path / "visitors.key").write_bytes(b"short")
    with pytest.raises(InputError, match="damaged"):
        key_of(tmp_path)


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "expected"),
    [
        ("10.0.0.1", "1.2.3.4", 0, "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", 1, "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.1.1.1", 2, "1.2.3.4"),
        ("10.0.0.1", "1.2.3.4", 2, "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6, 8.8.4.4, 10.1.1.1", None, "8.8.4.4"),
        ("10.0.0.1", "10.1.1.1, nonsense", None, "10.0.0.1"),
        ("2001:db8:1:2:3::4", "", 0, "2001:db8:1:2::/64"),
        ("::ffff:1.2.3.4", "", 0, "1.2.3.4"),
        ("testclient", "", 0, "testclient"),
    ],
)
def test_only_trusted_proxies_say_what_an_address_is(peer, forwarded, proxies, expected) -> None:
    assert address_of(peer, forwarded, proxies) == expected


def test_a_space_is_public_unless_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, space, expected in (("", "", False), ("1", "", True), ("", "a/b", True), ("0", "a/b", False)):
        monkeypatch.setenv("RANKLAB_PUBLIC", said)
        monkeypatch.setenv("SPACE_ID", space)
        assert public_mode() is expected


def test_a_public_house_gives_no_login_of_the_host_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKLAB_PUBLIC", "1")
    environment = {"HF_TOKEN": "x", "SPACE_ID": "a/b", "FORWARDED_ALLOW_IPS": "*"}
    house = House.of(tmp_path, Settings(), environment)
    assert "HF_TOKEN" not in environment and environment["RANKLAB_PUBLIC"] == "1"
    assert environment["FORWARDED_ALLOW_IPS"] == "" and house.rules.framed
    confined = Confinement.from_environment(environment)
    assert confined.nice > 0 and confined.memory_gb and confined.cpu_minutes and confined.network == "loading"
    longest = PublicLimits().minutes * 60
    assert house.within(Limits()).total == longest and house.within(Limits(total=5)).total == 5
    assert house.queue(10_000) == PublicLimits().queue and house.queue(3) == 3
    monkeypatch.setenv("RANKLAB_PUBLIC", "0")
    own = House.of(tmp_path, Settings(), {})
    assert own.within(Limits()) == Limits() and own.queue(10_000) == 10_000
    assert own.rules.names is not None and "127.0.0.1" in own.rules.names and house.rules.names is None
    assert House.of(tmp_path, Settings(), {"SPACE_ID": "a/b"}).rules.names is None, "a private Space has its own name"


def test_the_cookie_fits_where_the_page_stands() -> None:
    own, space = cookie_header("v", framed=False, secure=False), cookie_header("v", framed=True, secure=True)
    assert "HttpOnly" in own and "SameSite=Lax" in own and "Secure" not in own
    assert "HttpOnly; SameSite=None; Secure; Partitioned" in space


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    clock = [0.0]
    rates = Rates(PublicLimits(starts_per_minute=6, address=2, total=3), lambda: clock[0])
    one, other = Visitor("a", "x", True), Visitor("b", "x", True)
    assert [rates.take("start", one) for _ in range(6)] == [0.0] * 6
    assert rates.take("start", one) == pytest.approx(10.0)
    assert [rates.take("start", other) for _ in range(6)] == [0.0] * 6
    assert rates.take("start", Visitor("c", "x", True)) > 0, "the address has had its share"
    assert rates.take("start", Visitor("d", "y", True)) == 0.0
    assert rates.take("read", one) == 0.0, "each kind is counted by itself"
    clock[0] = 10.0
    assert rates.take("start", one) == 0.0
    forgetful = [rates.take("start", Visitor(str(n), "z")) for n in range(30)]
    assert sum(wait == 0 for wait in forgetful) <= 12, "who sends no cookie counts by address"


def test_a_tally_counts_visitors_and_addresses() -> None:
    tally = Tally(1, 2, 9, "Full.")
    with tally.at(Visitor("a", "x")), tally.at(Visitor("b", "x")):
        for visitor in (Visitor("a", "y"), Visitor("c", "x")):
            with pytest.raises(Refused, match="Full"):
                tally.enter(visitor)
    tally.enter(Visitor("a", "x"))


def test_what_is_too_large_is_said_at_its_field() -> None:
    training = TrainingConfig(steps=5000, batch_size=512, max_length=4096)
    methods = tuple(MethodSpec(id="lora", options={"rank": rank}) for rank in range(1, 14))
    spec = ComparisonSpec(methods=methods, seeds=(0, 1), train_rows=10**6, training=training)
    with pytest.raises(FormError) as caught:
        check_size(spec, PublicLimits())
    fields = [error.field for error in caught.value.errors]
    assert fields == ["training.steps", "training.batch_size", "training.max_length", "train_rows", "seeds"]
    assert "5,000 steps are asked for, and 1,000 are the most" in caught.value.errors[0].message
    check_size(ComparisonSpec(methods=methods[:2]), PublicLimits())


def test_accounts_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    assert accounts_of(None, None) is None
    accounts = accounts_of("ada:one:two,bob:p", None)
    assert accounts is not None
    assert accounts("ada", "one:two") and accounts("bob", "p")
    assert not accounts("ada", "p") and not accounts("", "") and not accounts("bob", "P")
    file = tmp_path / "who"
    file.write_text("# people\ncy:x,y\n")
    from_file = accounts_of(None, str(file))
    assert from_file is not None and from_file("cy", "x,y")
    for wrong in ("ada", "ada:", ":secret"):
        with pytest.raises(InputError) as caught:
            accounts_of(wrong, None)
        assert "secret" not in str(caught.value)


def test_folders_of_this_machine_are_taken_out() -> None:
    here = str(Path(__file__).resolve().parents[2])
    assert scrubbed(f"No such file: '{here}/assets/x.csv'") == "No such file: '(a folder of the server)'"
    assert scrubbed("owner/name and/or nothing") == "owner/name and/or nothing"
    assert scrubbed(None) is None


@pytest.mark.parametrize(
    ("method", "headers", "foreign"),
    [
        ("POST", {}, False),
        ("POST", {"origin": "http://page", "host": "page"}, False),
        ("POST", {"origin": "http://evil", "host": "page"}, True),
        ("GET", {"origin": "null", "host": "page"}, True),
        ("GET", {"sec-fetch-site": "cross-site"}, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
        ("POST", {"sec-fetch-site": "same-site", "origin": "http://localhost:3000", "host": "localhost:7860"}, True),
        ("POST", {"sec-fetch-site": "same-origin", "origin": "https://page", "host": "behind-a-proxy"}, False),
        ("POST", {"sec-fetch-site": "cross-site", "origin": "https://friend"}, False),
    ],
)
def test_pages_of_other_sites_are_told_by_what_browsers_say(method, headers, foreign) -> None:
    assert is_foreign(method, headers, frozenset({"https://friend"})) is foreign


def guarded(rules: Rules) -> Starlette:
    async def echo(request: Request) -> PlainTextResponse:
        body = await request.body()
        return PlainTextResponse(f"{len(body)} {current().id}")

    paths = ("/", "/ranklab/echo", "/ranklab/start", "/ranklab/health", "/gradio_api/file=x", "/login")
    return Starlette(
        routes=[Route(path, echo, methods=["GET", "POST"]) for path in paths],
        middleware=[Middleware(Guard, rules=rules)],
    )


def test_a_visitor_gets_one_cookie_and_keeps_its_name() -> None:
    client = TestClient(guarded(Rules(visitors=Visitors(KEY), names=None)))
    first = client.get("/ranklab/echo")
    assert "HttpOnly" in first.headers["set-cookie"]
    assert first.headers["cache-control"] == "private, no-store", "what one visitor sees is in no cache for another"
    again = client.get("/ranklab/echo")
    assert again.text == first.text and "set-cookie" not in again.headers
    assert TestClient(client.app).get("/ranklab/echo").text != first.text
    assert client.get("/gradio_api/file=x").status_code == 403
    refused = TestClient(client.app).post("/ranklab/start", headers={"Sec-Fetch-Site": "same-origin"})
    assert refused.status_code == 403 and "keeps no cookie" in refused.json()["errors"][0]["message"]


def test_a_page_of_ones_own_needs_no_cookie() -> None:
    client = TestClient(guarded(Rules()), base_url="http://localhost")
    answer = client.get("/ranklab/echo")
    assert answer.text == "0 " and "set-cookie" not in answer.headers
    assert answer.headers["content-security-policy"] == "frame-ancestors 'self'", "no other site frames it"
    assert client.get("/gradio_api/file=x").status_code == 200, "Gradio's own rules hold there"
    assert client.post("/ranklab/start", headers={"Origin": "https://evil.example"}).status_code == 403


def test_too_many_requests_are_told_when_to_come_again() -> None:
    client = TestClient(guarded(Rules(PublicLimits(starts_per_minute=3), Visitors(KEY), names=None)))
    client.get("/")
    answers = [client.post("/ranklab/start") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert "try again in" in answers[-1].json()["errors"][0]["message"]


def test_large_and_slow_bodies_are_not_taken() -> None:
    client = TestClient(guarded(Rules(PublicLimits(body_seconds=0.3), Visitors(KEY), names=None)))
    assert client.post("/ranklab/start", content=b"x" * 1_100_000).status_code == 413

    def pieces():
        for _ in range(12):
            yield b"x" * 100_000

    assert client.post("/ranklab/start", content=pieces()).status_code == 413

    async def slow() -> tuple[float, int]:
        sent: list[int] = []

        async def receive():
            await asyncio.sleep(5)

        async def send(message):
            sent.append(message.get("status", 0))

        scope = {
            "type": "http", "method": "POST", "path": "/ranklab/start", "headers": [], "query_string": b"",
            "scheme": "http", "client": ("192.0.2.1", 1), "server": ("x", 80), "root_path": "", "http_version": "1.1",
        }  # fmt: skip
        started = time.monotonic()
        await client.app(scope, receive, send)
        return time.monotonic() - started, sent[0]

    seconds, status = asyncio.run(slow())
    assert status == 408 and seconds < 4


def test_with_a_login_nothing_of_ours_is_open_without_it() -> None:
    app = guarded(Rules(names=None))
    app.auth, app.cookie_id, app.tokens = accounts_of("a:b", None), "id", {"good": "a"}
    client = TestClient(app)
    assert client.get("/ranklab/echo").status_code == 401
    assert client.get("/ranklab/echo", headers={"Cookie": "access-token-id=bad"}).status_code == 401
    assert client.get("/ranklab/echo", headers={"Cookie": "access-token-unsecure-id=good"}).status_code == 200
    assert client.get("/ranklab/health").status_code == 200 and client.get("/").status_code == 200
    assert client.get(f"/ranklab/echo?x={COOKIE}").json() == {"errors": [{"field": "", "message": "Log in first."}]}
    assert [client.post("/login").status_code for _ in range(8)].count(429) == 2


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:7860", True),
        ("[::1]:7860", True),
        ("192.168.1.5", True),
        ("LocalHost:7860", True),
        ("box.", True),
        ("lab.example:443", True),
        ("evil.example:7860", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_a_page_of_ones_own_answers_to_its_own_names(host: str, known: bool) -> None:
    """Else a site whose name leads here would be the same site to a browser."""
    assert is_known(host, names_of("box", origins_of("https://lab.example"))) is known


def test_a_name_that_was_made_to_lead_here_is_refused() -> None:
    client = TestClient(guarded(Rules()), base_url="http://localhost")
    rebound = {"Host": "evil.example:7860", "Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example:7860"}
    assert client.post("/ranklab/start", headers=rebound).status_code == 403
    assert client.get("/", headers={"Host": "evil.example", "Sec-Fetch-Mode": "navigate"}).status_code == 403
    assert client.get("/ranklab/echo").status_code == 200
    anywhere = TestClient(guarded(Rules(visitors=Visitors(KEY), names=None)))
    assert anywhere.get("/ranklab/echo", headers={"Host": "any.example"}).status_code == 200
