"""Log lines bear the ids of their runs and nothing that is private."""

from __future__ import annotations

import io
import json
import logging

import pytest

from peft_core.records import InputError
from peft_core.runs.logs import HIDDEN, about, configure
from tests.runs.support import comparison, supervise

log = logging.getLogger("tests.logs")
TOKEN = "hf_" + "a1B2" * 8


@pytest.fixture
def lines(monkeypatch):
    """Configures logging into memory; returns what makes it and the stream."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()

    def begin(kind: str, public: bool = False) -> io.StringIO:
        monkeypatch.setenv("RANKLAB_PUBLIC", "1" if public else "0")
        configure("info", kind, stream)
        return stream

    yield begin
    root.handlers[:] = before
    root.setLevel(level)


def test_json_lines_bear_the_ids(lines):
    stream = lines("json")
    with about("c2345678", "c2345678-1"):
        log.info("half %d\nway", 1)
    log.warning("alone")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["comparison"], first["run"], first["message"]) == ("c2345678", "c2345678-1", "half 1\nway")
    assert set(second) == {"time", "level", "logger", "message"} and second["level"] == "warning"


def test_text_is_for_people(lines):
    stream = lines("text")
    log.info("it is running", extra={"run": "c2345678-0"})
    assert stream.getvalue().endswith(" INFO tests.logs [c2345678-0]: it is running\n")
    log.warning("no task %s", "x\r\n2026-01-01 WARNING root: all is well")
    assert stream.getvalue().splitlines()[-1] == "    2026-01-01 WARNING root: all is well", "no line of its own"


@pytest.mark.parametrize(
    "private",
    [
        TOKEN,
        "Authorization: Bearer abc.def-123",
        "http://host/x?a=1&token=abc123",
        "https://name:abc123@proxy:80/",
        "a visit from 203.0.113.77",
        "a visit from 2001:db8:0:0:1:0:0:77",
    ],
)
def test_no_token_and_no_address_of_a_visitor(lines, private):
    stream = lines("json")
    log.warning("heard: %s", private)
    try:
        raise RuntimeError(private)
    except RuntimeError:
        log.exception("and failed")
    said = stream.getvalue()
    assert HIDDEN in said and "and failed" in said and "RuntimeError" in said
    assert not [word for word in (TOKEN, "abc.def", "abc123", "203.0", "2001:db8") if word in said]


def test_a_public_page_logs_no_values_rows_or_uploads(lines):
    stream = lines("text", public=True)
    log.warning("tried again: %s", InputError("task", "my salary; 'and' more", "it must be short"))
    log.warning("cannot read /srv/uploads/0f3a/my-diary.csv")
    row = "row 7: Ann earns 5"
    try:
        raise ValueError(row)
    except ValueError:
        log.exception("it failed")
    said = stream.getvalue()
    assert f"task is {HIDDEN}; it must be short." in said and f"/srv/uploads/{HIDDEN}" in said
    assert "ValueError" in said and "test_logs.py" in said and "it failed" in said
    assert not [word for word in ("salary", "diary", "Ann earns") if word in said]


def test_an_owners_own_page_says_what_failed(lines):
    stream = lines("text")
    try:
        raise ValueError("row 7: column b is empty")
    except ValueError:
        log.exception("it failed")
    assert "row 7: column b is empty" in stream.getvalue() and "http://127.0.0.1" not in stream.getvalue()


def test_a_run_is_followed_by_its_id(lines, tmp_path):
    stream = lines("json")
    with supervise(tmp_path, executor="thread") as supervisor:
        made = supervisor.submit(comparison(methods=2, steps=2))
        assert supervisor.wait(made, 20)
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [(line["comparison"], line["run"], line["message"]) for line in found if "run" in line]
    for number in (0, 1):
        run = f"{made}-{number}"
        assert (made, run, "the run is running") in told and (made, run, "the run is finished") in told
