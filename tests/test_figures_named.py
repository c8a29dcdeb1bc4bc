"""Every table and figure in a document names the file in assets/ that it comes from, and the command that makes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = sorted((ROOT / "assets").rglob("*.md"))
COMMAND = re.compile(r"scripts/\w+\.py|tests[./]\w+[./]\w+(?:\.py)?|python -m peft_core \w+|`make \w+`")
LINK = re.compile(r"\]\((?!http)([^)#\s]+)\)")
FIGURE = re.compile(r"^\|(?!.*`roberta-base`).*[|~ ]\d[\d,]*\.\d+", re.MULTILINE)
"""A row of a table with a figure that somebody measured or counted: one with decimals."""


def commands(text: str) -> list[str]:
    return COMMAND.findall(text)


def exists(command: str) -> bool:
    """Whether what a document names as a command is there."""
    if command.startswith("`make "):
        return (
            re.search(rf"^{command.strip('`').split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE) is not None
        )
    if command.startswith("python -m peft_core "):
        return f'"{command.split()[-1]}"' in (ROOT / "peft_core" / "cli.py").read_text()
    path = command if command.endswith(".py") else command.replace(".", "/") + ".py"
    return (ROOT / path).is_file()


def data_named(text: str, folder: Path) -> list[Path]:
    """The files of figures that a text links to."""
    found = [(folder / target).resolve() for target in LINK.findall(text)]
    return [path for path in found if path.suffix in (".json", ".csv") and (ROOT / "assets") in path.parents]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_table_in_assets_names_its_data_and_its_command(path):
    text = path.read_text(encoding="utf-8")
    assert FIGURE.search(text), "a table without figures needs no place here"
    beside = [path.with_suffix(".json")] if "the JSON beside it" in text else []
    named = [*data_named(text, path.parent), *beside]
    assert named and all(found.is_file() for found in named)
    assert commands(text) and all(exists(command) for command in commands(text))


def sections(text: str) -> list[str]:
    return re.split(r"^#{1,2} ", text, flags=re.MULTILINE)


def shows(section: str) -> bool:
    """Whether a section of a document has a picture or a table of figures."""
    return bool(re.search(r"!\[", section) or FIGURE.search(section))


def test_a_figure_in_the_readme_names_its_data_and_a_command_that_is_there():
    shown = [section for section in sections((ROOT / "README.md").read_text(encoding="utf-8")) if shows(section)]
    assert shown
    for section in shown:
        title = section.splitlines()[0]
        assert data_named(section, ROOT), f"{title}: a figure without its file in assets/"
        assert all(path.is_file() for path in data_named(section, ROOT))
        assert commands(section) and all(exists(command) for command in commands(section)), title


def test_a_document_without_either_is_found():
    bare = "Title\n\n| method | score |\n|---|---|\n| lora | 0.75 |\n"
    assert shows(bare) and not data_named(bare, ROOT) and not commands(bare)
    assert (
        not exists("scripts/nothing.py") and not exists("python -m peft_core nothing") and not exists("`make nothing`")
    )
