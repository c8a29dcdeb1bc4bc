"""The store: states move only as they may, nothing is stored twice, files of other versions are treated with care."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from peft_core.records import InputError, RunState, StateRecord, StepRecord
from peft_core.runs import DiskFull, Refused, Store, StoreBusy, StoreUnusable, folders, home, schema
from peft_core.runs.job import as_json
from peft_core.runs.rows import NEXT, summed_up
from tests.runs.stand_in import result
from tests.runs.support import comparison

STATES = list(RunState)
HOW = {
    RunState.QUEUED: [],
    RunState.RUNNING: ["running"],
    RunState.STOPPING: ["running", "stopping"],
    RunState.FINISHED: ["running", "finished"],
    RunState.FAILED: ["running", "failed"],
    RunState.CANCELLED: ["running", "stopping", "cancelled"],
    RunState.INTERRUPTED: ["running", "interrupted"],
}


@pytest.fixture
def store(tmp_path):
    with closing(Store(tmp_path / "store.sqlite", patience=0.3)) as made:
        yield made


def state(run, name):
    return {"event": as_json(StateRecord(run=run, step=0, state=RunState(name)))}


def step(run, number, loss=1.0):
    values = {"learning_rate": 0.1, "seconds": 1.0, "flops": 1.0, "active_parameters": 1}
    record = StepRecord(
        run=run, step=number, loss=loss, grad_norm=1.0, adapter_flops_executed=0, adapter_flops_nominal=0, **values
    )
    return {"event": as_json(record)}


def one_run(store, *states):
    comparison_id = store.add(comparison(methods=1), "me")
    store.apply(comparison_id, [state(f"{comparison_id}-0", name) for name in states])
    return comparison_id, f"{comparison_id}-0"


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_a_state_follows_only_where_it_may(store, before, after):
    comparison_id, run = one_run(store, *HOW[before])
    assert store.runs(comparison_id)[0].state is before
    store.apply(comparison_id, [state(run, after)])
    unasked = after is RunState.CANCELLED and before in (RunState.QUEUED, RunState.RUNNING)
    wanted = RunState.INTERRUPTED if unasked else after
    assert store.runs(comparison_id)[0].state is (wanted if wanted in NEXT[before] else before)


def test_the_finished_never_changes(store):
    comparison_id, run = one_run(store, "running", "finished")
    store.request_stop([run])
    store.requeue(comparison_id, [run], "other")
    store.interrupt(["me", "other"])
    assert store.runs(comparison_id)[0].state is RunState.FINISHED


def test_what_is_stored_already_is_left_out(store):
    comparison_id, run = one_run(store, "running")
    store.apply(comparison_id, [step(run, 1, 5.0), step(run, 2)])
    store.apply(comparison_id, [step(run, 1, 7.0), step(run, 3)])
    view = store.view(comparison_id)
    assert [(event["step"], event["loss"]) for event in view.events if event["event"] == "step"] == [
        (1, 5.0), (2, 1.0), (3, 1.0),
    ]  # fmt: skip
    assert view.runs[0].step == 3
    assert [event["step"] for event in store.view(comparison_id, view.events[-2]["seq"]).events] == [3]


@pytest.mark.parametrize("before", ["queued", "cancelled", "finished", "failed", "interrupted"])
def test_events_of_a_run_that_is_not_live_are_left_out(store, before):
    comparison_id, run = one_run(store, *HOW[RunState(before)])
    store.apply(comparison_id, [step(run, 1)])
    assert not [event for event in store.view(comparison_id).events if event["event"] == "step"]


def test_a_batch_is_stored_whole_or_not_at_all(store):
    comparison_id, run = one_run(store, "running")
    with pytest.raises(InputError):
        store.apply(comparison_id, [step(run, 1), step("nothing", 1)])
    assert store.runs(comparison_id)[0].step == 0


def test_stop_and_end_at_the_same_moment_leave_one_end(store):
    for _ in range(20):
        comparison_id, run = one_run(store, "running")
        stop = threading.Thread(target=store.request_stop, args=([run],))
        stop.start()
        store.apply(comparison_id, [state(run, "finished"), state(run, "cancelled")])
        stop.join()
        store.apply(comparison_id, [state(run, "cancelled")])
        names = [event["state"] for event in store.view(comparison_id).events]
        assert names in (["running", "finished"], ["running", "stopping", "finished"])


def test_claiming_is_for_the_owner_and_once(store):
    comparison_id, run = one_run(store)
    assert not store.claim(comparison_id, "other")
    assert store.claim(comparison_id, "me")
    assert not store.claim(comparison_id, "me")
    store.release(comparison_id)
    store.request_stop([run])
    assert not store.claim(comparison_id, "me")


@pytest.mark.parametrize(
    "given",
    ["", "..", "../../etc", "a", "aaaaaaaa", "aaaaaaaa-0", "AAAAAAAA", "aaaaaaaa/..", "aaaaaaa\n", "a" * 500, None],
)
def test_unknown_ids_are_refused(store, given):
    with pytest.raises(InputError, match="there is no comparison or run with this id"):
        store.find(given)


def test_ids_are_unique_short_and_safe(tmp_path):
    ids = {folders.new_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert all(folders.comparison_folder(tmp_path, new).parent == tmp_path / "comparisons" for new in ids)


def test_a_comparison_with_a_live_run_is_not_deleted(store):
    comparison_id, run = one_run(store, "running")
    with pytest.raises(Refused):
        store.delete(comparison_id)
    store.apply(comparison_id, [{"event": {**state(run, "finished")["event"], "result": result(3).model_dump()}}])
    assert store.runs(comparison_id)[0].result == result(3)
    store.delete(comparison_id)
    assert store.comparisons() == []


@pytest.mark.parametrize(
    ("states", "claimed", "whole"),
    [
        ("queued queued", False, "queued"),
        ("queued queued", True, "running"),
        ("finished queued", False, "queued"),
        ("finished running", True, "running"),
        ("stopping stopping", True, "stopping"),
        ("stopping running", True, "running"),
        ("finished failed", False, "failed"),
        ("failed interrupted", False, "interrupted"),
        ("cancelled finished", False, "cancelled"),
        ("finished finished", False, "finished"),
    ],
)
def test_a_comparison_sums_up_its_runs(states, claimed, whole):
    assert summed_up([RunState(name) for name in states.split()], claimed=claimed) is RunState(whole)


def test_a_locked_store_is_waited_for_then_refused(store, tmp_path):
    comparison_id, run = one_run(store, "running")
    with closing(sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            store.apply(comparison_id, [step(run, 1)], patience=0.1)
        assert store.view(comparison_id).runs[0].state is RunState.RUNNING
        threading.Timer(0.3, lambda: other.execute("ROLLBACK")).start()
        store.apply(comparison_id, [step(run, 1)], patience=5.0)
    assert store.runs(comparison_id)[0].step == 1


def test_a_full_disk_is_named_and_leaves_no_half_batch(store):
    comparison_id, run = one_run(store, "running")
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull):
        store.apply(comparison_id, [step(run, number) for number in range(1, 200)])
    assert store.runs(comparison_id)[0].step == 0


def test_an_older_schema_is_migrated_after_a_backup(tmp_path, monkeypatch):
    file = tmp_path / "store.sqlite"
    with closing(Store(file)) as old:
        comparison_id = old.add(comparison(), "me")
    before = len(schema.MIGRATIONS)
    added = ("ALTER TABLE comparisons ADD COLUMN title TEXT", "UPDATE comparisons SET title = 'kept'")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, added))
    with closing(Store(file)) as new:
        assert [row.id for row in new.comparisons()] == [comparison_id]
    with closing(sqlite3.connect(file)) as plain:
        assert plain.execute("SELECT title FROM comparisons").fetchall() == [("kept",)]
        assert plain.execute("PRAGMA user_version").fetchone() == (before + 1,)
    with closing(sqlite3.connect(tmp_path / f"store.sqlite.v{before}.backup")) as backup:
        assert backup.execute("SELECT id FROM comparisons").fetchall() == [(comparison_id,)]
        assert backup.execute("PRAGMA user_version").fetchone() == (before,)


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    file = tmp_path / "store.sqlite"
    Store(file).close()
    before = len(schema.MIGRATIONS)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE more (a)", "SELECT nothing")))
    with pytest.raises(sqlite3.OperationalError):
        Store(file)
    with closing(sqlite3.connect(file)) as plain:
        assert plain.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchall() == []
        assert plain.execute("PRAGMA user_version").fetchone() == (before,)


def test_a_newer_schema_is_refused_untouched(tmp_path):
    file = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(file)) as future:
        future.execute("PRAGMA user_version = 99")
        future.execute("CREATE TABLE future (a)")
        future.commit()
    before = file.read_bytes()
    with pytest.raises(StoreUnusable, match=r"has schema 99 .* update RankLab"):
        Store(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_no_store_is_refused_untouched(tmp_path):
    file = tmp_path / "store.sqlite"
    file.write_text("something else " * 100)
    with pytest.raises(StoreUnusable, match="is not a store of RankLab"):
        Store(file)
    assert file.read_text() == "something else " * 100


def test_the_folder_is_the_one_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path / "new" / "folder"))
    assert home() == tmp_path / "new" / "folder"
    assert home().is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path / "file"))
    with pytest.raises(Refused, match="set RANKLAB_HOME to a folder that can be written"):
        home()


def test_the_clock_may_jump(store):
    first, second = (store.add(comparison(), "me") for _ in range(2))
    store._writer.execute("UPDATE comparisons SET created = '2999-01-01T00:00:00+00:00' WHERE id = ?", (first,))
    assert [row.id for row in store.comparisons()] == [second, first]
    for file in Path(schema.__file__).parent.glob("*.py"):
        assert "time.time(" not in file.read_text()
