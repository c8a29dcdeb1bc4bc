"""Lists over all runs, notes, and deletion that can be undone."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from peft_core.records import InputError, RunState
from peft_core.runs import Limits, Refused, RunQuery, Store, schema
from peft_core.runs.listing import SORTS
from tests.report.sample import METRIC, sample_result
from tests.runs.big_store import METHODS, TASKS, fill
from tests.runs.support import comparison, supervise, until

SOON = Limits(beat=2.5, stall=30.0, stop=2.0, spare=0.0, undo=0.4)
LATE = Limits(beat=2.5, stall=30.0, stop=2.0, spare=0.0, undo=600.0)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    file = tmp_path_factory.mktemp("many") / "store.sqlite"
    count = fill(file, comparisons=20, seeds=2)
    with closing(Store(file)) as store:
        yield store, count


def listed(store, **query):
    return store.list_runs(RunQuery(**query))


def test_pages_hold_every_run_once_in_any_order(many):
    store, count = many
    for sort in SORTS:
        for up in (False, True):
            pages = [listed(store, sort=sort, up=up, offset=offset, limit=30) for offset in range(0, count, 30)]
            runs = [row.run for page in pages for row in page.rows]
            assert {page.total for page in pages} == {count} == {len(set(runs))} == {len(runs)}


def test_filters_and_words_narrow_down(many):
    store, count = many
    choices = {name: dict(values) for name, values in store.choices().items()}
    assert sum(choices["state"].values()) == count
    assert set(choices["task"]) == set(TASKS)
    assert set(choices["method"]) == {label.partition(":")[0] for label in METHODS}
    for name, values in choices.items():
        for value, number in values.items():
            assert listed(store, **{name: value}).total == number
    rows = listed(store, method="lora", search="RANK=8 entail", limit=200).rows
    assert {(row.label, row.task) for row in rows} == {("lora:rank=8", "entailment")}
    assert len(rows) == 20 // len(TASKS) * 2
    assert listed(store, search="%").total == listed(store, search="'").total == 0


def test_scores_are_sorted_and_missing_ones_come_last(many):
    store, count = many
    for up in (True, False):
        scores = [row.score for row in listed(store, sort="score", up=up, limit=200).rows]
        known = [score for score in scores if score is not None]
        assert scores == known + [None] * (count - len(known))
        assert known == sorted(known, reverse=not up)
    row = listed(store, state="finished", limit=1).rows[0]
    assert row.figures["trainable"] and row.figures["effective_mean"]


def test_a_finished_run_is_listed_with_its_score(tmp_path):
    with closing(Store(tmp_path / "store.sqlite")) as store:
        made = store.add(comparison(methods=1), "me")
        result = sample_result("lora", 0, 0.25, 30).model_dump(mode="json")
        store.apply(made, [{"notice": {"metric": METRIC}}])
        for state, body in (("running", None), ("finished", result)):
            event = {"event": "state", "run": f"{made}-0", "step": 0, "state": state, "result": body}
            store.apply(made, [{"event": event}])
        assert [(row.score, row.metric) for row in listed(store).rows] == [(0.25, METRIC)]


def test_an_older_store_gets_its_scores(tmp_path, monkeypatch):
    file = tmp_path / "store.sqlite"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            schema.prepare(connection, file)
            spec = comparison(methods=1).model_dump_json()
            values = ("aaaaaaaa", "2026-01-01", spec, "me", "rouge.l")
            connection.execute(
                "INSERT INTO comparisons (id, created, spec, owner, metric) VALUES (?, ?, ?, ?, ?)", values
            )
            result = sample_result("lora", 0, 0.5, 3).model_copy(update={"score": {"a": 1.0, "rouge.l": 0.75}})
            values = ("aaaaaaaa-0", "aaaaaaaa", 0, "lora", '{"id":"lora"}', 0, "finished", result.model_dump_json())
            connection.execute(
                "INSERT INTO runs (run, comparison, number, label, method, seed, state, result) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
    with closing(Store(file)) as store:
        assert [(row.run, row.score, row.task) for row in listed(store).rows] == [("aaaaaaaa-0", 0.75, "stand-in")]
    assert (tmp_path / "store.sqlite.v1.backup").is_file()


def test_notes_are_kept_found_and_taken_away(tmp_path):
    with closing(Store(tmp_path / "store.sqlite")) as store:
        made = store.add(comparison(methods=2), "me")
        store.write_note(f"{made}-1", "diverged at the end")
        store.write_note(made, "first try")
        assert store.notes(f"{made}-1") == ("diverged at the end", "first try")
        assert [row.run for row in listed(store, search="DIVERGED").rows] == [f"{made}-1"]
        assert listed(store, search="first try").total == 2
        store.write_note(made, "")
        assert listed(store, search="first try").total == 0
        with pytest.raises(InputError):
            store.write_note("zzzzzzzz", "nobody")


def finished(supervisor):
    made = supervisor.submit(comparison(methods=1, steps=2))
    assert supervisor.wait(made, 20)
    return made


def test_what_is_deleted_is_hidden_at_once_and_comes_back(tmp_path):
    with supervise(tmp_path, "thread", limits=LATE, server=True) as supervisor:
        made = finished(supervisor)
        assert supervisor.hide(f"{made}-0") == LATE.undo
        assert supervisor.comparisons() == supervisor.recent(5) == []
        assert supervisor.list_runs(RunQuery()).total == 0
        for asked in (supervisor.view, supervisor.resume, supervisor.cancel, supervisor.hide, supervisor.notes):
            with pytest.raises(InputError):
                asked(made)
        [(row, left)] = supervisor.hidden()
        assert row.id == made and 0 < left <= LATE.undo
        supervisor.unhide(made)
        assert supervisor.view(made).runs[0].state is RunState.FINISHED
        assert supervisor.list_runs(RunQuery()).total == 1
        with pytest.raises(InputError):
            supervisor.unhide(made)


def test_it_is_removed_when_the_time_to_undo_is_over(tmp_path):
    with supervise(tmp_path, "thread", limits=SOON, server=True) as supervisor:
        made = finished(supervisor)
        folder = supervisor.folder(made)
        supervisor.hide(made)
        until(lambda: not folder.exists())
        assert supervisor.hidden() == []
        with pytest.raises(InputError):
            supervisor.unhide(made)


def test_a_crash_in_between_loses_nothing(tmp_path):
    """The process that hid it is gone without a word; the next one still brings it back, and does not remove it."""
    with supervise(tmp_path, "thread", limits=LATE) as supervisor:
        made = finished(supervisor)
        folder = supervisor.folder(made)
    with closing(Store(tmp_path / "store.sqlite")) as store:
        store.hide(made)
    with supervise(tmp_path, "thread", limits=LATE, server=True) as supervisor:
        assert [row.id for row, _ in supervisor.hidden()] == [made]
        supervisor.unhide(made)
        assert folder.is_dir() and supervisor.view(made).runs[0].state is RunState.FINISHED


def test_a_live_comparison_is_not_deleted(tmp_path):
    with supervise(tmp_path, "thread", limits=LATE, server=True) as supervisor:
        made = supervisor.submit(comparison(methods=1, steps=100_000))
        with pytest.raises(Refused, match="stop it before deleting"):
            supervisor.hide(made)
        assert supervisor.list_runs(RunQuery()).total == 1
        supervisor.cancel(made)
        assert supervisor.wait(made, 20)
        supervisor.hide(made)
