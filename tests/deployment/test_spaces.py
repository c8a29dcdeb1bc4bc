"""What a Space is told, what it installs, and what it says where nothing outlives a restart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from peft_core.runs.errors import FolderUnusable
from scripts.audit import pinned
from ui import storage
from ui.launching import build

ROOT = Path(__file__).parents[2]
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
MATTER = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def pins(name: str) -> dict[str, str]:
    return {requirement.name: str(requirement.specifier) for requirement in pinned(ROOT / name)}


def test_the_front_matter_is_complete():
    needed = (
        "title emoji colorFrom colorTo sdk sdk_version python_version app_file "
        "short_description tags models datasets license pinned"
    )
    assert not set(needed.split()) - set(MATTER)
    assert MATTER["sdk"] == "gradio" and (ROOT / MATTER["app_file"]).is_file()
    assert MATTER["colorFrom"] in COLOURS and MATTER["colorTo"] in COLOURS
    assert 0 < len(MATTER["short_description"]) <= 60 and MATTER["license"] == "apache-2.0"
    assert MATTER["python_version"] in ("3.11", "3.12", "3.13")


def test_the_sdk_is_the_pinned_gradio():
    assert (
        f"=={MATTER['sdk_version']}" == pins("requirements.txt")["gradio"] == pins("requirements-zerogpu.txt")["gradio"]
    )


def test_zero_gpu_has_all_that_the_app_needs():
    zero, usual = pins("requirements-zerogpu.txt"), pins("requirements.txt")
    assert set(zero) == set(usual) | {"spaces"}
    assert {name for name in usual if zero[name] != usual[name]} == {"torch"}
    assert "unverified" in (ROOT / "requirements-zerogpu.txt").read_text(encoding="utf-8").lower()


def test_the_app_needs_no_package_that_is_not_required():
    """What starting the page imports, in a process that has nothing else loaded."""
    code = (
        "import sys, json, ui.launching; from importlib import metadata as m;"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert "gradio" in loaded and not {"torch", "transformers", "pytest", "spaces", "peft", "playwright"} & loaded


def test_an_own_machine_keeps_its_history(monkeypatch, tmp_path):
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setattr(storage, "CONTAINER_MARKS", ())
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path))
    assert storage.choose_home() == (tmp_path, "")


def test_a_container_without_a_volume_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setattr(storage, "CONTAINER_MARKS", (tmp_path,))
    monkeypatch.setattr(storage, "_in_memory", lambda folder: False)
    home = tmp_path / "volume" / "home"
    monkeypatch.setenv("RANKLAB_HOME", str(home))
    assert storage.choose_home(lambda place: False)[1] == (
        "History will not outlive a restart: no volume holds the folder for runs."
    )
    assert storage.choose_home(lambda place: place == tmp_path / "volume") == (home, "")


def test_a_space_uses_its_disk_or_says_that_it_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("SPACE_ID", "owner/space")
    monkeypatch.delenv("RANKLAB_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(storage, "SPACE_DISK", tmp_path / "data")
    monkeypatch.setattr(storage, "_in_memory", lambda folder: False)
    assert storage.choose_home(lambda place: place == tmp_path / "data") == (tmp_path / "data" / "ranklab", "")
    folder, said = storage.choose_home(lambda place: False)
    assert folder == tmp_path / "user" / "ranklab" and "this Space has no disk or bucket" in said


def test_a_folder_that_cannot_be_written_is_replaced_on_a_space_alone(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("SPACE_ID", "owner/space")
    folder, said = storage.choose_home()
    assert folder.is_dir() and "a temporary one is used" in said
    folder.rmdir()
    monkeypatch.delenv("SPACE_ID")
    with pytest.raises(FolderUnusable, match="set RANKLAB_HOME"):
        storage.choose_home()


def test_the_page_bears_the_notice():
    shown = json.dumps(build(None, "History <will> not outlive").get_config_file())
    assert "History &lt;will&gt; not outlive" in shown
    assert "rl-notice" not in json.dumps(build().get_config_file())


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_another_python_is_told_in_one_sentence(version, tmp_path):
    """What is there of other versions is tried for real too; here the app believes that it runs in one."""
    code = f"import sys, runpy; sys.version_info = ({version[0]}, {version[1]}, 0); sys.argv = ['app.py'];"
    code += "runpy.run_path('app.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == f"RankLab needs Python 3.11, 3.12 or 3.13, and this is Python {version[0]}.{version[1]}.\n"


def test_the_app_file_is_read_by_older_pythons():
    """No syntax newer than Python 3.8's stands before the sentence."""
    import ast

    source = (ROOT / "app.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 8))
    assert not re.search(r"^(from (?!__future__)|import (?!sys))", source, re.MULTILINE)
