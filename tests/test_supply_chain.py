"""What comes from outside is pinned, and nothing here runs what it reads."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from scripts.audit import EXPLAINED, pinned, pulled_in, told

ROOT = Path(__file__).parents[1]
PRODUCT = [
    ROOT / "app.py",
    *(path for room in ("peft_core", "ui", "scripts", "examples") for path in (ROOT / room).rglob("*.py")),
]
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pd.read_pickle",
    "pandas.read_pickle",
}


def dotted(node: ast.AST) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def constant(call: ast.Call, name: str) -> object:
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def complaints(source: str) -> list[str]:
    """What a source has that runs what it reads, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"{node.lineno}: import {name}" for name in names if name.split(".")[0] in MODULES]
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                found += [f"{node.lineno}: os.{a.name}" for a in node.names if f"os.{a.name}" in METHODS]
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        if called in CALLS or called in METHODS:
            found.append(f"{node.lineno}: {called}()")
        shells = [k.value for k in node.keywords if k.arg == "shell"]
        if any(getattr(value, "value", True) is not False for value in shells):
            found.append(f"{node.lineno}: a shell")
        if called == "torch.load" and constant(node, "weights_only") is not True:
            found.append(f"{node.lineno}: torch.load()")
        if any(constant(node, name) is True for name in ("allow_pickle", "trust_remote_code")):
            found.append(f"{node.lineno}: pickles or code of strangers are allowed")
    return found


def test_nothing_runs_what_it_reads():
    found = {path.relative_to(ROOT): complaints(path.read_text(encoding="utf-8")) for path in PRODUCT}
    assert len(found) > 300 and not {path: lines for path, lines in found.items() if lines}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from dill import loads", "eval(x)", "exec(x)", "run(x, shell=True)", "run(x, shell=y)",
        "os.system(x)",
        "from os import system", "yaml.load(x)", "torch.load(x)", "torch.load(x, weights_only=False)",
        "torch.load(x, weights_only=y)",
        "np.load(x, allow_pickle=True)", "f(trust_remote_code=True)",
    ],
)  # fmt: skip
def test_each_of_them_would_be_seen(source):
    assert len(complaints(source)) == 1


def test_what_is_allowed_is_not_complained_of():
    allowed = "re.compile(x); model.eval(); torch.load(x, weights_only=True); yaml.safe_load(x); run([x], shell=False)"
    assert not complaints(allowed)


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements*.txt")), ids=lambda path: path.name)
def test_every_requirement_is_one_exact_version(path):
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    asked = [line for line in lines if line and not line.startswith("#")]
    assert asked
    for line in asked:
        assert re.fullmatch(r"-r requirements\.txt|[A-Za-z0-9._-]+(\[[\w,]+\])?==[0-9][\w.]*", line), line


def test_versions_are_the_same_in_every_file():
    versions: dict[str, set[str]] = {}
    for path in ROOT.glob("requirements*.txt"):
        for requirement in pinned(path):
            if requirement.name != "torch":  # what ZeroGPU has is its own list
                versions.setdefault(requirement.name, set()).add(str(requirement.specifier))
    assert not {name: found for name, found in versions.items() if len(found) > 1}


def test_no_file_names_where_packages_come_from():
    """That is for whoever installs to say: pip's and apt's own configuration, or the image's build argument."""
    host = re.compile(
        r"\b(pypi\.org|pythonhosted\.org|download\.pytorch|npmjs\.|debian\.org|ubuntu\.com|ghcr\.io)", re.IGNORECASE
    )
    kinds = {".py", ".md", ".txt", ".toml", ".yml", ".yaml", ".js", ".sh", ".css", ".html", ""}
    files = [
        path
        for path in ROOT.rglob("*")
        if path.suffix in kinds and path.is_file() and not path.relative_to(ROOT).parts[0].startswith(".")
    ]
    assert ROOT / "Dockerfile" in files
    assert not [path for path in files if host.search(path.read_text(encoding="utf-8", errors="ignore"))]


def test_an_audit_covers_what_is_pulled_in():
    found = pulled_in(pinned())
    assert {"torch", "gradio", "starlette", "fastapi", "tokenizers", "pydantic-core"} <= set(found)
    assert "+" not in "".join(found.values())


def test_an_audit_without_its_service_is_no_clean_bill(monkeypatch):
    flaw = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}
    well, ill = {"name": "a", "version": "1", "vulns": []}, {"name": "b", "version": "1", "vulns": [flaw]}
    lost = {"name": "c", "skip_reason": "not found"}
    assert told({"dependencies": [well]})[0] == 0
    assert told({"dependencies": [well, lost]})[0] == 2
    status, lines = told({"dependencies": [well, ill, lost]})
    assert status == 1 and lines[0] == "b 1: PYSEC-1, fixed in 2.0." and "1 of 3 packages could not be" in lines[1]
    monkeypatch.setitem(EXPLAINED, "CVE-1", "Its parser is not used.")
    assert told({"dependencies": [ill]})[0] == 0
