"""Settings: the environment before the file, one clear sentence, and a table in the docs that names them all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from peft_core.records import InputError
from ui.origins import origins_of
from ui.public_limits import PublicLimits
from ui.settings import ALIASES, ELSEWHERE, TABLE, Settings, load, variable

ROOT = Path(__file__).parents[2]


def written(folder: Path, text: str) -> Path:
    path = folder / "ranklab.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_said_is_the_defaults(tmp_path):
    assert load({}, tmp_path) == Settings()
    assert (Settings().host, Settings().port, Settings().limits().free) == ("127.0.0.1", 7860, 200 * 2**20)


def test_the_environment_wins_over_the_file(tmp_path):
    written(tmp_path, 'port = 8000\nhost = "0.0.0.0"\nmax_minutes = 2\npublic = true\nmetrics = "no"\n')
    found = load({"RANKLAB_PORT": "9000", "RANKLAB_PUBLIC": "off"}, tmp_path)
    assert (found.port, found.host, found.public, found.metrics) == (9000, "0.0.0.0", False, False)
    assert found.limits().total == 120


def test_the_file_is_looked_for_in_three_places(tmp_path):
    here, home, named = tmp_path / "here", tmp_path / "home", tmp_path / "named.toml"
    here.mkdir()
    home.mkdir()
    written(home, "port = 1")
    assert load({"RANKLAB_HOME": str(home)}, here).port == 1
    written(here, "port = 2")
    assert load({"RANKLAB_HOME": str(home)}, here).port == 2
    named.write_text("port = 3")
    assert load({"RANKLAB_HOME": str(home), "RANKLAB_CONFIG": str(named)}, here).port == 3


def test_gradios_variables_count_where_ours_are_not_set(tmp_path):
    theirs = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "7000"}
    assert load(theirs, tmp_path).port == 7000
    assert load({**theirs, "RANKLAB_PORT": "7001"}, tmp_path).port == 7001


@pytest.mark.parametrize(
    ("environment", "text", "said"),
    [
        ({"RANKLAB_PORT": "x"}, "", "RANKLAB_PORT is 'x'; it must be a whole number from 0 to 65535."),
        ({"GRADIO_SERVER_PORT": "70000"}, "", "GRADIO_SERVER_PORT is '70000'; it must be"),
        ({"RANKLAB_PUBLIC": "maybe"}, "", "RANKLAB_PUBLIC is 'maybe'; it must be true or false (1 or 0)."),
        ({"RANKLAB_MAX_MINUTES": "nan"}, "", "RANKLAB_MAX_MINUTES is 'nan'; it must be a number above 0"),
        ({"RANKLAB_CONFIG": "/nowhere.toml"}, "", "RANKLAB_CONFIG is '/nowhere.toml'; there is no such file."),
        ({}, "log_format = 'xml'", "FILE is 'xml'; it must be one of text, json."),
        ({}, "port = true", "FILE is 'true'; it must be a number or a text."),
        ({}, "port = [1]", "FILE is 'a list or a table'; it must be one value."),
        ({}, "prot = 1", "FILE is 1; there is no such option; there are host, port,"),
        ({}, "auth = 7", "FILE is '(not shown)'; it must be a text."),
        ({}, "port = ", "it cannot be read: Invalid value"),
        ({"RANKLAB_AUTH": "me"}, "", "RANKLAB_AUTH is '(not shown)'; every entry must be user:password"),
        ({}, "auth = ','", "auth FILE is '(not shown)'; it must have an entry user:password."),
        ({"RANKLAB_AUTH_FILE": "/nowhere"}, "", "RANKLAB_AUTH_FILE is '/nowhere'; it must be a readable file of lines"),
        ({"RANKLAB_PROXIES": "all"}, "", "RANKLAB_PROXIES is 'all'; it must be a whole number from 0 to 20."),
        ({"RANKLAB_ORIGINS": "a.example"}, "", "RANKLAB_ORIGINS is 'a.example'; it must be like https://example.org."),
        ({}, "origins = 'https://a.b/c'", "origins FILE is 'https://a.b/c'; it must be like https://example.org."),
        ({}, "origins = \"https://a; x 'none'\"", "origins FILE is "),
        ({"RANKLAB_PUBLIC_STEPS": "many"}, "", "RANKLAB_PUBLIC_STEPS is 'many'; it must be a whole number from 1 to"),
        ({"RANKLAB_PUBLIC_MINUTES": "inf"}, "", "RANKLAB_PUBLIC_MINUTES is 'inf'; it must be a number above 0"),
        ({}, "[public_limits]\nsteps = 0", "public_limits.steps FILE is 0; it must be a whole number from 1 to"),
        ({}, "[public_limits]\nsteps = true", "public_limits.steps FILE is 'true'; it must be a number or a text."),
        ({}, "[public_limits]\nstep = 5", "public_limits.step FILE is 5; there is no such option; there are steps,"),
        ({}, "public_limits = 5", "public_limits FILE is 5; it must be a table, [public_limits]."),
    ],
)
def test_a_wrong_value_is_one_sentence(tmp_path, environment, text, said):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load(environment, tmp_path)
    assert re.sub(r"\bFILE\b", f"in {path}", said) in str(caught.value) and "\n" not in str(caught.value)


def test_what_other_rooms_read_is_published(tmp_path):
    written(tmp_path, f'public = true\nhome = "{tmp_path}"\nupload_mib = 5\nport = 1\n')
    environment: dict[str, str] = {}
    load({}, tmp_path).publish(environment)
    assert environment == {
        "RANKLAB_PUBLIC": "1", "RANKLAB_HOME": str(tmp_path), "RANKLAB_UPLOAD_MIB": "5.0",
    }  # fmt: skip
    assert set(ELSEWHERE) <= set(Settings.model_fields)


def test_limits_of_a_public_page_stand_in_a_table_and_the_environment_wins(tmp_path):
    written(
        tmp_path,
        'public = true\norigins = "https://A.example/, http://b:1"\n[public_limits]\nsteps = 7\nminutes = 2.5\n',
    )
    environment = {"RANKLAB_PUBLIC_STEPS": "9", "RANKLAB_PUBLIC_RUNS": " "}
    found = load(environment, tmp_path)
    assert found.public_limits == PublicLimits(steps=9, minutes=2.5)
    assert origins_of(found.origins) == {"https://a.example", "http://b:1"}


def test_a_secret_is_not_in_the_settings_text():
    assert "letmein" not in repr(Settings(auth="me:letmein")) + str(Settings(auth="me:letmein"))


def test_the_table_in_the_docs_is_the_model():
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (first, second) = text.split("| | | | **in the table `[public_limits]`; they count on a public page** |\n")
    for part, kind, table in ((first, Settings, ""), (second, PublicLimits, TABLE)):
        rows = re.findall(r"^\| `(\w+)` \| `(RANKLAB_\w+)`(?: or `(\w+)`)? \| (.*?) \| (.*?) \|$", part, re.MULTILINE)
        assert [row[0] for row in rows] == [name for name in kind.model_fields if name != TABLE]
        for name, own, other, default, meaning in rows:
            field = kind.model_fields[name]
            assert own == variable(name, table) and other == ALIASES.get(name, "") and meaning == field.description
            assert default == ("" if field.default is None else f"`{field.default}`"), name


def test_the_app_refuses_before_anything_starts(tmp_path):
    home = tmp_path / "home"
    own = {**os.environ, "RANKLAB_PORT": "lots", "RANKLAB_HOME": str(home)}
    done = subprocess.run([sys.executable, ROOT / "app.py"], env=own, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and not home.exists()
    assert done.stderr == "RANKLAB_PORT is 'lots'; it must be a whole number from 0 to 65535.\n" and not done.stdout


def test_a_page_that_is_to_train_on_a_cluster_does_so_or_says_what_is_missing(tmp_path, monkeypatch):
    from peft_core.runs.ray import RayExecutor
    from ui import launching

    monkeypatch.setattr("peft_core.runs.ray.RayExecutor._open", lambda executor: None)
    monkeypatch.setattr("peft_core.runs.ray_options.installed", lambda: "2.60.0")
    settings = load({"RANKLAB_EXECUTOR": "ray"}, tmp_path)
    house = launching.House.of(tmp_path / "home", settings)
    with launching.supervise(tmp_path / "home", settings, house) as supervisor:
        assert isinstance(supervisor._executor, RayExecutor) and supervisor._executor.options.address is None
    monkeypatch.setenv("RANKLAB_RAY_ADDRESS", "10.0.0.7:6379")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match="joined with token authentication only"):
        launching.supervise(tmp_path / "home", settings, house)
    with launching.supervise(tmp_path / "home", load({}, tmp_path), house):
        """The folder was let go of, so that another server has it."""
