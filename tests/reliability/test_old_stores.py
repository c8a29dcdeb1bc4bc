"""Stores of other versions, through the command line in a process of its own: migrated after a backup, or untouched."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from peft_core.runs import schema
from tests.reliability.support import ROOT
from tests.runs.support import comparison

pytestmark = pytest.mark.reliability


def listed(home) -> subprocess.CompletedProcess[str]:
    """What `runs` says of a folder."""
    environment = {**os.environ, "RANKLAB_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "peft_core", "runs", "--json"]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_store_of_the_first_schema_is_migrated_after_a_backup(tmp_path):
    file = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(file)) as old:
        for statement in schema.MIGRATIONS[0]:  # never changed after its release, so this is the file of that time
            old.execute(statement)
        spec = comparison(methods=1).model_dump_json()
        old.execute(
            "INSERT INTO comparisons (id, created, spec, owner, metric) VALUES (?, ?, ?, 'x', 'accuracy')",
            ("abcdefgh", "2025-01-01T00:00:00+00:00", spec),
        )
        old.execute(
            "INSERT INTO runs (run, comparison, number, label, method, seed, state, step, result) "
            "VALUES ('abcdefgh-0', 'abcdefgh', 0, 'lora', '{\"id\": \"lora\"}', 0, 'failed', 3, NULL)"
        )
        old.execute("PRAGMA user_version = 1")
        old.commit()
    before = file.read_bytes()
    done = listed(tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in json.loads(done.stdout)] == ["abcdefgh"]
    with closing(sqlite3.connect(file)) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
        assert new.execute("SELECT note, method_id FROM runs").fetchall() == [("", "lora")]
    with closing(sqlite3.connect(tmp_path / "store.sqlite.v1.backup")) as backup:
        assert backup.execute("PRAGMA user_version").fetchone() == (1,)
        assert backup.execute("SELECT run, step FROM runs").fetchall() == [("abcdefgh-0", 3)]
    assert (tmp_path / "store.sqlite.v1.backup").stat().st_size == len(before)


@pytest.mark.parametrize("what", ["newer", "no store"])
def test_what_this_version_does_not_know_is_refused_untouched(tmp_path, what):
    file = tmp_path / "store.sqlite"
    if what == "newer":
        with closing(sqlite3.connect(file)) as future:
            future.execute("CREATE TABLE future (a)")
            future.execute("PRAGMA user_version = 99")
            future.commit()
    else:
        file.write_text("something else " * 100)
    before = file.read_bytes()
    done = listed(tmp_path)
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and str(file) in done.stderr
    assert file.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("store.") and path != file]
