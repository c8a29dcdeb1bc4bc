"""The wheel that `pip install .` makes: all of the product is in it, and it works from another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.export.test_inspect import made_by_peft

ROOT = Path(__file__).parents[1]
PARTS = ("peft_core", "ui", "assets")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Made from a copy, so that nothing is left here."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("package")
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / "source" / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt", "requirements-ray.txt"):
        shutil.copy(ROOT / name, folder / "source" / name)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(folder)]
    done = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (made,) = folder.glob("*.whl")
    return made


def test_all_files_of_the_product_are_in_it(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    here = [path.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("*") if path.is_file()]
    missing = [str(path) for path in here if "__pycache__" not in path.parts and str(path) not in inside]
    assert not missing and len(here) > 300
    assert not [name for name in inside if name.startswith(("tests", "scripts", "build"))]


def test_a_folder_that_peft_made_is_inspected_and_cut_from_anywhere(wheel, tmp_path):
    made_by_peft(tmp_path / "theirs")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path / "installed")
    command = [sys.executable, "-m", "peft_core", "inspect", tmp_path / "theirs", "--json"]
    command += ["--compress", "0.99", "--to", tmp_path / "small"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed"), "RANKLAB_HOME": str(tmp_path / "home")}
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert len(report["layers"]) == 4 and 0 < report["compressed"]["bytes"] < report["total"]["bytes"]
