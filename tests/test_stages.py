"""`make test` runs every test: what its first stage leaves out by a mark, another stage is given by its folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIRST, *STAGES = [line for line in (ROOT / "Makefile").read_text().splitlines() if "-m pytest" in line]


@pytest.mark.parametrize("mark", ["browser", "reliability"])
def test_what_is_left_out_by_a_mark_is_run_by_another_stage(mark):
    assert f"not {mark}" in FIRST
    (stage,) = [line for line in STAGES if f"tests/{mark}" in line]
    folders = [ROOT / folder for folder in re.findall(r"tests/\w+", stage)]
    marked = [file for file in (ROOT / "tests").rglob("test_*.py") if f"mark.{mark}" in file.read_text()]
    assert len(marked) > 5
    assert [file for file in marked if not any(file.is_relative_to(folder) for folder in folders)] == []
