"""`export`: folders that are there whole or not at all, their cards, and a push to the Hub."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import torch
import transformers
import yaml

from peft_core.backbones import load_backbone
from peft_core.cli import main
from peft_core.export.curve import round_values
from peft_core.export.names import public_sentence, public_value
from peft_core.export.native import load_native
from tests.hub_server import Fault, HubServer

LORA, BOOSTED, ADAPTER = ("lora:rank=8", 0), ("capaboost_lora:rank=8", 0), ("adapter_pfeiffer:bottleneck=4", 0)
TOKEN = "hf_" + "secretsecret"


def refused(capsys, *arguments) -> str:
    assert main(["export", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err


def batch_of(backbone):
    return backbone.processor(["the cat sees a dog", "a dog"], return_tensors="pt", padding=True)


@torch.no_grad()
def test_a_merged_folder_loads_by_transformers_alone_and_answers_as_the_native_one(store, tmp_path, capsys):
    run = store.runs[BOOSTED]
    for kind in ("native", "merged"):
        assert main(["export", run, "--format", kind, "--to", str(tmp_path / kind), "--json"]) == 0
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["format"] for entry in written] == ["native", "merged"]
    assert all({"README.md", "curve.svg"} <= set(entry["files"]) for entry in written)
    trained = load_native(tmp_path / "native")
    batch = batch_of(trained.backbone)
    with trained.attached.active():
        expected = trained.attached.logits(batch)
    merged = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    again = tokenizer(["the cat sees a dog", "a dog"], return_tensors="pt", padding=True)
    torch.testing.assert_close(merged(**again).logits, expected, rtol=0, atol=1e-4)
    assert merged.config.id2label == {0: "unacceptable", 1: "acceptable"}
    plain = load_backbone("tiny-text", outputs=2, problem="classification")
    assert (plain.logits(batch) - expected).abs().max() > 1e-3


def test_the_native_folder_of_capaboost_is_smaller_than_that_of_lora(store, tmp_path):
    sizes = []
    for key in (BOOSTED, LORA):
        to = tmp_path / key[0].partition(":")[0]
        assert main(["export", store.runs[key], "--format", "native", "--to", str(to)]) == 0
        sizes.append(sum((to / name).stat().st_size for name in ("adapter.safetensors", "adapter.json")))
    assert sizes[0] <= 0.76 * sizes[1]


def test_the_card_says_what_it_is(store, tmp_path):
    assert main(["export", store.runs[LORA], "--format", "peft", "--to", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["library_name"] == "peft" and {"ranklab", "lora"} <= set(matter["tags"])
    assert "| n |" in body and "± " in body and "| 2 |" in body, "n and std over the comparison's seeds"
    assert '"rank": 8' in body and '"torch"' in body and "rows_sha256" in body
    assert "PeftModel.from_pretrained" in body and "curve.svg" in body
    picture = ElementTree.parse(tmp_path / "out" / "curve.svg").getroot()
    assert picture.tag.endswith("svg")
    points = next(part.attrib["points"] for part in picture.iter() if part.tag.endswith("polyline"))
    assert len(points.split()) == 3, "steps 0, 2 and 4"


@pytest.mark.parametrize(
    ("key", "kind", "instead"),
    [
        (ADAPTER, "peft", "native can be had"),
        (ADAPTER, "merged", "native can be had"),
        (("full", 0), "peft", "merged and native"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_that_says_what_can(store, tmp_path, capsys, key, kind, instead):
    said = refused(capsys, store.runs[key], "--format", kind, "--to", str(tmp_path / "out"))
    assert said.startswith("format is") and instead in said
    assert not list(tmp_path.glob("*out*"))


def test_wrong_ids_and_taken_folders_are_refused(store, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    for given, to, field in (
        ("nothing", "out", "id"),
        ("aaaaaaaa-0", "out", "id"),
        (f"{store.id}-77", "out", "id"),
        (store.id, "out", "id"),
        (store.runs[LORA], "taken", "to"),
        (store.runs[LORA], "taken/mine.txt", "to"),
    ):
        said = refused(capsys, given, "--format", "native", "--to", str(tmp_path / to))
        assert said.startswith(f"{field} is"), said
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]


def test_values_that_are_not_finite_leave_nothing_behind(store, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    from peft_core.training.native import write_sums

    file = store.home / "comparisons" / store.id / store.runs[LORA] / "adapter" / "adapter.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, file)
    write_sums(file.parent)
    for kind in ("peft", "merged"):
        assert "not finite" in refused(capsys, store.runs[LORA], "--format", kind, "--to", str(tmp_path / "out"))
        assert not list(tmp_path.glob("*out*"))


def test_a_damaged_run_folder_is_a_sentence(store, tmp_path, capsys):
    file = store.home / "comparisons" / store.id / store.runs[LORA] / "adapter" / "head.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    said = refused(capsys, store.runs[LORA], "--format", "native", "--to", str(tmp_path / "out"))
    assert "its file head.safetensors is damaged: the checksum does not fit" in said
    (file.parent / "SHA256SUMS").unlink()  # as a folder from before there were any
    assert "cannot be read" in refused(capsys, store.runs[LORA], "--format", "native", "--to", str(tmp_path / "out"))


def test_weights_that_are_others_are_refused(store, tmp_path, capsys):
    with sqlite3.connect(store.home / "store.sqlite") as connection:
        described = json.loads(connection.execute("SELECT environment FROM comparisons").fetchone()[0])
        described["model"]["weights_sha256"] = "0" * 64
        connection.execute("UPDATE comparisons SET environment = ?", (json.dumps(described),))
    said = refused(capsys, store.runs[LORA], "--format", "merged", "--to", str(tmp_path / "out"))
    assert "not those that the adapter was trained on" in said


@pytest.mark.parametrize("state", ["failed", "interrupted", "running"])
def test_a_run_that_has_not_finished_is_refused(store, tmp_path, capsys, state):
    with sqlite3.connect(store.home / "store.sqlite") as connection:
        connection.execute("UPDATE runs SET state = ?, result = NULL", (state,))
    said = refused(capsys, store.runs[LORA], "--format", "native", "--to", str(tmp_path / "out"))
    assert f"the run is {state}" in said


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.04, 0.76, [0, 0.2, 0.4, 0.6]), (0, 12, [0, 2, 4, 6, 8, 10, 12]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1])],
)
def test_axes_have_round_values(low, high, expected):
    assert round_values(low, high) == expected


def test_no_path_of_this_disk_travels():
    said = "rows of /home/me/mine.csv; hub:owner/name, either/or (see ~/x/table.tsv)"
    assert public_sentence(said) == "rows of mine.csv; hub:owner/name, either/or (see table.tsv)"
    assert public_value({"data": ["/home/me/mine.csv", "../up.csv", "glue/cola", 3]}) == {
        "data": ["mine.csv", "up.csv", "glue/cola", 3]
    }


@pytest.fixture
def hub(tmp_path):
    with HubServer(tmp_path / "hub", writers={TOKEN: "me"}) as server:
        yield server


def asked(hub, tmp_path, *words, **environment):
    """A process of its own, which asks the server."""
    own = hub.environment(tmp_path / "hf") | {"HF_HUB_OFFLINE": "0"} | environment
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, env=own, stdin=subprocess.DEVNULL
    )


PUSH = """
import sys
from pathlib import Path
from peft_core.export.hub import push_folder
from peft_core.records import InputError
for repository, token in zip(sys.argv[2::2], sys.argv[3::2]):
    try:
        print(push_folder(Path(sys.argv[1]), repository, token, "Once more"))
    except InputError as error:
        print(error)
"""


def test_a_push_makes_a_repository_with_the_folder_and_keeps_no_token(hub, store, tmp_path):
    to = tmp_path / "out"
    command = ["-m", "peft_core", "export", store.runs[LORA], "--format", "peft", "--to", to, "--verbose", "--json"]
    own = {"RANKLAB_HOME": str(store.home), "HF_TOKEN": TOKEN}
    done = asked(hub, tmp_path, *command, "--push-to-hub", "me/mine", **own)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["repository"].endswith("me/mine")
    sent = hub.files("models", "me/mine")
    assert {name: path.read_bytes() for name, path in sent.items()} == {
        path.name: path.read_bytes() for path in to.iterdir()
    }
    assert hub.commit_messages == ["Add lora:rank=8 (peft)"]
    assert TOKEN not in done.stdout + done.stderr
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert TOKEN.encode() not in path.read_bytes(), path


def test_what_the_hub_refuses_is_one_sentence_and_a_passing_fault_is_waited_for(hub, tmp_path):
    folder, bad = tmp_path / "folder", "hf_" + "anothertoken"
    folder.mkdir()
    (folder / "README.md").write_text("a card")
    hub.faults.append(Fault("/api/repos/create", status=503, times=1))
    given = ("me/mine", bad, "you/mine", TOKEN, "me/mine", TOKEN, "me/mine", TOKEN)
    done = asked(hub, tmp_path, "-c", PUSH, folder, *given)
    said = done.stdout.splitlines()
    assert len(said) == 4, done.stderr
    assert "does not accept the token" in said[0] and "may not write there" in said[1]
    assert said[2] == said[3] and said[3].endswith("me/mine"), "a repository that is there is written to"
    assert bad not in done.stdout + done.stderr and TOKEN not in done.stdout + done.stderr
    assert (hub.folder("models", "me/mine") / "README.md").read_text() == "a card"
    assert hub.commit_messages[0] == "Once more" and not (tmp_path / "hf" / "token").exists()


VISIT = """
import sys
from pathlib import Path
from peft_core.export.finished import FinishedRun
from peft_core.export.hub import push_folder, push_run
from peft_core.records import InputError
from peft_core.runs import home, stored_view
run = sys.argv[1]
comparison = run.rpartition("-")[0]
finished = FinishedRun.of(stored_view(comparison), run, home() / "comparisons" / comparison / run / "adapter")
for token in sys.argv[2:]:
    for push in (
        lambda: push_run(finished, "peft", "me/mine", token or None),
        lambda: push_folder(Path(sys.argv[0]).parent, "me/mine", token, "Mine"),
    )[: 1 if token == sys.argv[2] else 2]:
        try:
            print(push())
        except InputError as error:
            print(error)
"""


def test_on_a_public_page_only_a_visitors_own_login_pushes(store, tmp_path):
    """The owner's logins may write everywhere and are refused; the visitor's token leaves no trace."""
    owner, stored = "hf_" + "ownerownerowner", "hf_" + "storedstoredstored"
    with HubServer(tmp_path / "hub", writers={TOKEN: "me", owner: "me", stored: "me"}) as hub:
        own = {"RANKLAB_HOME": str(store.home), "RANKLAB_PUBLIC": "1", "TMPDIR": str(tmp_path / "scratch")}
        (tmp_path / "scratch").mkdir()
        (tmp_path / "hf").mkdir()
        own["HF_TOKEN"] = owner
        (tmp_path / "hf" / "token").write_text(stored)
        (tmp_path / "visit.py").write_text(VISIT)
        given = (store.runs[LORA], TOKEN, "", owner, stored)
        done = asked(hub, tmp_path, tmp_path / "visit.py", *given, PYTHONPATH=".", **own)
        said = done.stdout.splitlines()
        assert len(said) == 7, done.stderr
        assert said[0].endswith("me/mine"), "the visitor's"
        assert "log in with an account of your own" in said[1] and "log in with an account of your own" in said[2]
        assert all("only a visitor's own login" in line for line in said[3:])
        assert hub.commit_messages == ["Add lora:rank=8 (peft)"]
        assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= set(hub.files("models", "me/mine"))
        assert not list((tmp_path / "scratch").iterdir()), "nothing is left on the disk"
        for secret in (TOKEN, owner, stored):
            assert secret not in done.stdout + done.stderr
        for path in (path for path in tmp_path.rglob("*") if path.is_file()):
            assert TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("repository", "environment", "words"),
    [
        ("me/mine", {}, "there is no token"),
        ("me/mine", {"HF_TOKEN": TOKEN, "RANKLAB_PUBLIC": "1"}, "on a public installation"),
        ("mine", {"HF_TOKEN": TOKEN}, "owner/name"),
        ("me/mine@main", {"HF_TOKEN": TOKEN}, "owner/name"),
        ("me/mine", {"HF_TOKEN": "hf_ü" + TOKEN}, "must be a token"),
    ],
)
def test_a_push_without_right_or_token_writes_nothing(
    store, tmp_path, capsys, monkeypatch, repository, environment, words
):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asked = ("--format", "peft", "--to", str(tmp_path / "out"), "--push-to-hub", repository)
    said = refused(capsys, store.runs[LORA], *asked)
    assert words in said and TOKEN not in said and not list(tmp_path.glob("*out*"))


def test_a_push_needs_no_folder_and_an_export_needs_a_folder_or_a_push(store, capsys, monkeypatch):
    run = (store.runs[LORA], "--format", "native")
    assert "unless --push-to-hub" in refused(capsys, *run)
    for option in ("--token-stdin", "--new-repository"):
        assert "it takes --push-to-hub" in refused(capsys, *run, "--to", "out", option)
    monkeypatch.setattr("sys.stdin", io.StringIO(f" {TOKEN} \nmore"))
    pushed = []
    monkeypatch.setattr(
        "peft_core.export.hub.push_folder", lambda *given, new: pushed.append((*given[1:], new)) or "there"
    )
    options = ("--push-to-hub", "me/mine", "--token-stdin", "--new-repository", "--json")
    assert main(["export", *run, *options]) == 0
    assert pushed == [("me/mine", TOKEN, "Add lora:rank=8 (native)", True)]
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert (document["folder"], document["files"], document["repository"]) == (None, {}, "there")
    assert TOKEN not in said.out + said.err


def test_the_token_is_asked_for_at_a_terminal(store, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    asked, pushed = [], []
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or f" {TOKEN} ")
    monkeypatch.setattr("peft_core.export.hub.push_folder", lambda *given, **_: pushed.append(given) or "there")
    to = tmp_path / "out"
    given = ["export", store.runs[LORA], "--format", "peft", "--to", str(to), "--push-to-hub", "me/mine"]
    assert main(given) == 0 and len(asked) == 1
    assert pushed == [(to, "me/mine", TOKEN, "Add lora:rank=8 (peft)")]
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err
