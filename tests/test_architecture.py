"""The import rule: rooms know only the rooms below them, and some things are nowhere at all."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from peft_core.methods import list_methods

ROOT = Path(__file__).parents[1]
BELOW = {
    "records": set(),
    "metrics": {"records"},
    "methods": {"records", "metrics"},
    "backbones": {"records", "metrics"},
    "tasks": {"records", "metrics"},
    "training": {"records", "metrics", "methods", "backbones", "tasks"},
    "budget": {"records", "metrics", "methods", "backbones", "tasks", "training"},
    "locks": {"records", "metrics", "methods", "backbones", "tasks", "training", "budget"},
    "theorem": {"records", "metrics", "methods"},
    "playground": {"records", "metrics", "methods"},
    "runs": {"records", "metrics", "methods", "backbones", "tasks", "training"},
    "export": {"records", "metrics", "methods", "backbones", "tasks", "training"},
    "report": {"records"},
    "commands": {
        "records", "metrics", "methods", "backbones", "tasks", "training", "budget", "locks", "theorem", "runs",
        "export",
        "report",
    },
    "cli": {"records", "commands"},
    "api": {
        "records", "metrics", "methods", "backbones", "tasks", "training", "runs", "export", "report",
    },
}  # fmt: skip
FILES = sorted((ROOT / "peft_core").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Full names of everything a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "peft_core").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_below(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("peft_core.")}
    assert ours - {room, "__version__"} <= BELOW[room], f"{room} must not import {ours - {room} - BELOW[room]}"
    assert not {name for name in imports(path) if name.split(".")[0] in ("gradio", "ui", "app")}


@pytest.mark.parametrize("room", ["records", "report"])
def test_plain_rooms_load_no_torch(room):
    files = [path for path in FILES if room_of(path) == room]
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing_only = {
            id(node)
            for branch in ast.walk(tree)
            if isinstance(branch, ast.If) and getattr(branch.test, "id", "") == "TYPE_CHECKING"
            for node in ast.walk(branch)
        }
        for node in ast.walk(tree):
            if id(node) in typing_only:
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name for name in names if name.split(".")[0] in ("torch", "transformers")}, path


def test_only_ui_imports_gradio():
    files = [*ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py"), *FILES]
    assert not [path for path in files if any(name.split(".")[0] == "gradio" for name in imports(path))]


FORBIDDEN = re.compile(
    r"\bpickle\b|torch\.load\((?!.*weights_only=True)|(?<![\w.])eval\(|(?<![\w.])exec\(|shell=True|os\.system\("
)


NAMING = [ROOT / "peft_core" / "tasks" / name for name in ("_benchmarks.py", "_presets.py", "_table_task.py")]
NAMING += [ROOT / "peft_core" / "records" / "quoted.py"]
"""Papers and their splits that are called like their methods, their settings of methods, and the head of a table."""


def test_no_method_is_named_outside_its_own_file():
    methods = {method.id: method.family for method in list_methods()}
    ids = methods.keys() - set(methods.values())
    found = []
    for path in [*FILES, ROOT / "app.py", *(ROOT / "ui").rglob("*.py")]:
        if path in NAMING:
            continue
        own = path.stem if path.parent == ROOT / "peft_core" / "methods" else ""
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            word = str(node.value).partition(":")[0] if isinstance(node, ast.Constant) else ""
            if word in ids - {own}:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {word}")
    assert not found


def test_nothing_that_runs_what_it_reads():
    files = [*ROOT.glob("*.py"), *FILES, *(ROOT / "ui").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert not found


def test_no_file_is_two_rooms():
    files = [*ROOT.glob("*.py"), *FILES, *(ROOT / "ui").rglob("*.py")]
    long = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {name: lines for name, lines in long.items() if lines > 400}
