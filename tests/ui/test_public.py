"""What is whose on a public page: over a real supervisor with a stand-in trainer, and over files of visitors."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from peft_core.export.names import public_name
from peft_core.records import ComparisonSpec, InputError, MethodSpec, RunState
from peft_core.runs import Limits, Refused, RunQuery, Supervisor
from peft_core.tasks import get_task
from tests.runs.support import comparison, supervise
from ui.belongings import Belongings
from ui.exports import Exports
from ui.logins import Login
from ui.public import PublicRuns, VisitorUploads
from ui.public_limits import PublicLimits
from ui.pushes import Pushes
from ui.visitors import NOBODY, Visitor, current, visiting

LIMITS = Limits(beat=2.5, stall=30.0, stop=2.0, spare=0.0, undo=600.0)
ADA, BOB, EVE = Visitor("aa", "01", True), Visitor("bb", "01", True), Visitor("ee", "02", True)
PUBLIC = PublicLimits(visitor_comparisons=2, address_comparisons=3, kept=3, visitor_jobs=1)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with supervise(tmp_path / "home", "thread", limits=LIMITS, server=True) as made:
        yield made


@pytest.fixture
def runs(supervisor: Supervisor) -> Belongings:
    return Belongings(supervisor, lambda task: task.startswith("upload:"), PUBLIC)


def begun(runs: Belongings, visitor: Visitor, spec: ComparisonSpec | None = None) -> str:
    with visiting(visitor):
        return runs.submit(spec or comparison(steps=3))


def private(**change: object) -> ComparisonSpec:
    return comparison(steps=3).model_copy(update={"task": "upload:01-aa/ff/secret.csv", **change})


def test_a_private_comparison_is_its_visitors_alone(supervisor: Supervisor, runs: Belongings) -> None:
    shared, hers = begun(runs, ADA), begun(runs, ADA, private())
    operators = supervisor.submit(comparison(steps=3))
    for made in (shared, hers, operators):
        assert supervisor.wait(made, 20)
    seen = {ADA: {shared, hers}, BOB: {shared}, NOBODY: {shared}}
    for visitor, expected in seen.items():
        with visiting(visitor):
            assert {row.id for row in runs.recent(9)} == {row.id for row in runs.comparisons()} == expected
            page = runs.list_runs(RunQuery())
            assert {row.comparison for row in page.rows} == expected and page.total == 2 * len(expected)
            assert sum(count for _, count in runs.choices()["task"]) == page.total
            for made in (shared, hers, operators):
                if made in expected:
                    assert runs.view(made).comparison.id == made
                    assert runs.view_of_run(f"{made}-0").runs[0].run == f"{made}-0"
                else:
                    with pytest.raises(InputError, match="there is no comparison or run with this id"):
                        runs.view(made)
            with pytest.raises(InputError):
                runs.visit("../../etc")
    with visiting(BOB):
        assert runs.only_own().recent(9) == []


def test_only_its_visitor_changes_a_comparison(supervisor: Supervisor, runs: Belongings) -> None:
    made = begun(runs, ADA)
    assert supervisor.wait(made, 20)
    with visiting(ADA):
        runs.write_note(f"{made}-0", "a diary")
    for other in (BOB, NOBODY):
        with visiting(other):
            for work in (runs.cancel, runs.resume, runs.hide, runs.unhide, lambda given: runs.write_note(given, "x")):
                with pytest.raises(Refused, match="another visitor"):
                    work(made)
            assert runs.notes(f"{made}-0") == ("", "")
            assert runs.list_runs(RunQuery(search="diary")).total == 0
            assert runs.list_runs(RunQuery()).rows[0].note == ""
    with visiting(ADA):
        assert runs.list_runs(RunQuery(search="diary")).total == 1
        runs.hide(made)
        assert [row.id for row, _ in runs.hidden()] == [made]
    with visiting(BOB):
        assert runs.hidden() == []
        with pytest.raises(Refused):
            runs.unhide(made)
    with visiting(ADA):
        runs.unhide(made)
    assert supervisor.view(made).comparison.state is RunState.FINISHED


def test_a_visitor_and_an_address_have_so_many_at_once(supervisor: Supervisor, runs: Belongings) -> None:
    long = comparison(steps=4000)
    first, second = begun(runs, ADA, long), begun(runs, ADA, long)
    with pytest.raises(Refused, match="You have 2 comparisons queued or running"):
        begun(runs, ADA, long)
    third = begun(runs, BOB, long)
    with pytest.raises(Refused, match="3 comparisons from your network"):
        begun(runs, BOB, long)
    fourth = begun(runs, EVE, long)
    with pytest.raises(Refused, match="keeps no cookie"):
        begun(runs, NOBODY, long)
    assert runs._runs.view(fourth).comparison.queue_place is not None
    for visitor, made in ((ADA, first), (ADA, second), (BOB, third), (EVE, fourth)):
        with visiting(visitor):
            runs.cancel(made)
    assert supervisor.wait(first, 20)
    begun(runs, ADA)


def test_starts_at_the_same_moment_are_counted_one_by_one(runs: Belongings) -> None:
    long, ready = comparison(steps=4000), threading.Barrier(8)

    def begin(_: int) -> str | None:
        ready.wait(20)
        try:
            return begun(runs, ADA, long)
        except Refused:
            return None

    with ThreadPoolExecutor(8) as many:
        made = [found for found in many.map(begin, range(8)) if found]
    assert len(made) == 2
    with visiting(ADA):
        for found in made:
            runs.cancel(found)


def test_a_start_that_waits_for_the_hub_keeps_nobody_else_waiting(
    runs: Belongings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def check(*_: object) -> None:
        if current().id == ADA.id:
            asked.set()
            assert answered.wait(60)

    monkeypatch.setattr("peft_core.runs.job.check", check)
    with ThreadPoolExecutor(1) as other:
        slow = other.submit(begun, runs, ADA)
        assert asked.wait(20)
        try:
            assert begun(runs, BOB)
            assert not slow.done()
        finally:
            answered.set()
        assert slow.result(20)


def test_old_comparisons_make_room(supervisor: Supervisor, runs: Belongings) -> None:
    made = []
    for _ in range(5):
        made.append(begun(runs, ADA))
        assert supervisor.wait(made[-1], 20)
    begun(runs, ADA)
    assert [name for name in made if supervisor.visit_of(name) is None] == made[:2]


def test_what_begins_with_a_run_is_as_private_as_that(supervisor: Supervisor, runs: Belongings) -> None:
    hers = begun(runs, ADA, private())
    assert supervisor.wait(hers, 20)
    named = comparison(steps=3).model_copy(
        update={"methods": (MethodSpec(id="r_lora", options={"rank_pattern": f"{hers}-0 q=3"}),)}
    )
    assert runs._is_private(named) and not runs._is_private(comparison())
    with visiting(BOB), pytest.raises(InputError, match="there is no comparison"):
        runs.submit(named.model_copy(update={"methods": (MethodSpec(id="lora", options={"from": f"{hers}-0"}),)}))


def test_jobs_are_their_visitors_and_counted(supervisor: Supervisor, runs: Belongings, tmp_path: Path) -> None:
    made = begun(runs, ADA)
    assert supervisor.wait(made, 20)

    def write(_run: str, _kind: str, to: Path) -> None:
        to.mkdir(parents=True)
        (to / "x").write_text("x")
        while not (tmp_path / "go").exists():
            time.sleep(0.01)

    exports = Exports(tmp_path / "exports", write)
    service = PublicRuns(runs, exports, Pushes(tmp_path / "pushes", lambda *_: ""), PUBLIC)
    with visiting(BOB):
        with pytest.raises(Refused, match="another visitor"):
            service.export(f"{made}-0", "native")
        shown = service.run(f"{made}-0", Login("none"))
        assert (shown["fixed"], shown["formats"], shown["resumable"]) == (True, [], False)
    with visiting(ADA):
        job = service.export(f"{made}-0", "native")["job"]
        with pytest.raises(Refused, match="under way already"):
            service.export(f"{made}-1", "native")
        (tmp_path / "go").touch()
        end = time.monotonic() + 20
        while service.export_state(job)["state"] == "waiting" and time.monotonic() < end:
            time.sleep(0.01)
        assert service.archive(job)[0].is_file()
        assert service.export(f"{made}-0", "native")["job"] == job
        assert service.run(f"{made}-0", Login("none"))["fixed"] is False
    with visiting(BOB):
        for look in (service.archive, service.export_state, service.push_state):
            with pytest.raises(InputError, match="no such export or push"):
                look(job)
    exports.close()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


def kept(uploads: VisitorUploads, visitor: Visitor, data: bytes, name: str = "x.csv") -> str:
    with visiting(visitor):
        return uploads.task_of(asyncio.run(uploads.receive(name, pieces(data))))


def test_uploads_are_by_visitor_and_called_by_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = PublicLimits(upload_mib=0.01, visitor_uploads_mib=0.01, address_uploads_mib=0.014, upload_hours=1)
    uploads = VisitorUploads(tmp_path / "uploads", limits)
    monkeypatch.setenv("RANKLAB_UPLOADS", str(uploads.folder))
    table = b"text,label\n" + b"".join(b"row %d,%d\n" % (n, n % 2) for n in range(400))
    hers, his = kept(uploads, ADA, table, "../secret.csv"), kept(uploads, BOB, table, "other.csv")
    assert str(tmp_path) not in hers and hers.endswith("/secret.csv") and his.endswith("/other.csv")
    assert get_task(hers).info.title == public_name(hers) == "secret.csv"
    with visiting(BOB):
        assert uploads.holds(his) and not uploads.holds(hers) and not uploads.holds("upload:../../x")
        assert not uploads.holds(str(next(uploads.folder.rglob("other.csv"))))
    with pytest.raises(Refused, match="one visitor"):
        kept(uploads, ADA, table * 2)
    with pytest.raises(Refused, match="one network"):
        kept(uploads, Visitor("cc", "01", True), table * 2)
    with pytest.raises(Refused, match="no cookie"):
        kept(uploads, NOBODY, table)
    old = next(uploads.folder.rglob("secret.csv"))
    os.utime(old, (0, time.time() - 7200))
    uploads.sweep_old()
    assert not old.exists()
    with pytest.raises(InputError, match="not kept any more"):
        get_task(hers)
    assert not list(uploads.folder.glob(".partial-*"))
