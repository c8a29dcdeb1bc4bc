"""The page's frame: what is asked for ahead is what the first tab needs at once."""

from __future__ import annotations

import re

import pytest

from ui.frame import STATIC, head, modules


def test_all_that_is_imported_at_once_is_found_and_nothing_that_comes_later() -> None:
    found = modules("page.js")
    assert len(found) == len(set(found))
    assert {"page.js", "shown.js", "charts.js", "util.js", "define.js"} <= set(found)
    assert "measured.js" not in found and "runs.js" not in found


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_every_import_of_a_script_is_there(path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r'(?:from |import\()"\./([\w.-]+)"', text):
        assert (STATIC / name).is_file(), f"{path.name} imports {name}"
    static = {name for line in text.splitlines() if line.startswith("import ") for name in re.findall(r"\w+\.js", line)}
    assert static <= set(modules(path.name)), "each on one line, so that it is asked for ahead"


def test_the_head_names_them() -> None:
    assert all(f'"{name}"' in head() for name in modules("page.js"))
