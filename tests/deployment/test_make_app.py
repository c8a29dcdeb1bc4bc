"""`make app` says in one sentence what it lacks, before it makes anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD = """#!/bin/sh
[ "$1" = -V ] && { echo "Python 3.10.4"; exit 0; }
exit 1
"""
BARE = f"""#!/bin/sh
case "$2" in *ensurepip*) exit 1;; esac
exec {sys.executable} "$@"
"""


@pytest.fixture
def folder(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (OLD, "RankLab needs Python 3.11, 3.12 or 3.13, and FAKE is Python 3.10.4; name one with make app PYTHON="),
        (BARE, "FAKE cannot make a .venv: it lacks ensurepip; on Debian and Ubuntu install python3-venv."),
        (None, "RankLab needs Python 3.11, 3.12 or 3.13, and there is no FAKE here; name one with make app PYTHON="),
    ],
)
def test_what_is_missing_is_one_sentence(folder, script, said):
    fake = folder / "fake-python"
    if script:
        fake.write_text(script)
        fake.chmod(0o755)
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "app", f"PYTHON={fake}"], cwd=folder, env=alone, capture_output=True, text=True)
    first, *rest = done.stderr.splitlines()
    assert done.returncode == 2 and first.startswith(said.replace("FAKE", str(fake)))
    assert len(rest) == 1 and rest[0].startswith("make: ***") and not (folder / ".venv").exists()
    assert not done.stdout.strip()
