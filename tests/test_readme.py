"""The README's commands run as they stand, and what it links to is there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.strip().splitlines()]


def test_the_commands_run(tmp_path):
    for command in COMMANDS:
        words = shlex.split(command)
        assert words[0] == "python"
        words = [sys.executable, *[str(tmp_path / "out") if word == "out" else word for word in words[1:]]]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["runs"]) == 4
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000


def test_the_python_examples_run(tmp_path):
    codes = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(codes)], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=own
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert len(codes) == 2 and printed[-1].split()[1] == "64" and "matthews_correlation" in printed[0]
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_links_lead_somewhere():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert targets and not [target for target in targets if not (ROOT / target).exists()]


def test_the_front_matter_names_the_pinned_gradio():
    pinned = re.search(r"^gradio==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]
    assert re.search(r"^sdk_version: (\S+)$", TEXT, re.MULTILINE)[1] == pinned
    assert {"title", "sdk", "app_file", "license"} <= set(re.findall(r"^(\w+):", TEXT.split("---")[1], re.MULTILINE))
