"""A comparison on a model of the Hub: through the command line, with its commit on record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from peft_core.backbones import ModelSource
from peft_core.training import source
from tests.hub_server import Fault, HubServer
from tests.miniatures import MINIATURES

COMMANDS = """
import sys
from peft_core.cli import main

out = sys.argv[1]
common = ["--model", "some/tiny", "--method", "lora:rank=2"]
rows = ["--task", "acceptability", "--train-rows", "32", "--eval-rows", "16", "--batch-size", "8"]
status = main(["compare", *common, *rows, "--method", "bitfit", "--steps", "2", "--seeds", "1", "--json", "--out", out])
status = status or main(["budget", *common, "--json"])
raise SystemExit(status)
"""


def roberta(folder: Path) -> None:
    """A random RoBERTa with the tokenizer of the embedded encoder's words."""
    import torch
    import transformers

    values = dict(MINIATURES["roberta"])
    embedded = Path(source.__file__).parents[2] / "assets" / "models" / "tiny-text"
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values | {"vocab_size": len(tokenizer)})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not to be loaded")


def test_compare_trains_on_a_model_of_the_hub(tmp_path: Path) -> None:
    roberta(tmp_path / "models/some/tiny")
    with HubServer(tmp_path, faults=[Fault("/lfs/models/some/tiny/model", cut=5000, method="GET")]) as hub:
        commit = hub.commit("models", "some/tiny")
        environment = hub.environment(tmp_path / "cache") | {"RANKLAB_HOME": str(tmp_path / "home")}
        out = tmp_path / "out"
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, str(out)], env=environment, capture_output=True, text=True, timeout=150
        )
        assert done.returncode == 0, done.stderr[-2000:]
        weights = [line for line in hub.requests if line.startswith("GET /lfs/") and "safetensors" in line]
        assert len(weights) == 2, "broken off once, then resumed; one copy for server and worker"
        assert not any("pytorch_model" in line for line in hub.requests)
        assert "downloading some/tiny" in done.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["environment"]["model"] == {"origin": "hub", "id": "some/tiny", "commit": commit}
    assert [run["state"] for run in results["runs"]] == ["finished", "finished"]
    (adapter, _) = sorted((tmp_path / "home").rglob("adapter.json"))
    assert json.loads(adapter.read_text())["model"] == f"some/tiny@{commit}"
    budget = json.loads(done.stdout[done.stdout.rindex("\n[") :] if "\n[" in done.stdout else done.stdout)
    assert budget[0]["model"] == "some/tiny" and budget[0]["trainable"] == results["runs"][0]["trainable"]


BUDGET = """
import sys
from peft_core.cli import main

raise SystemExit(main(["budget", "--model", "some/tiny", "--method", "lora:rank=2", "--json", *sys.argv[1:]]))
"""


def test_budget_uses_no_network_unless_told(tmp_path: Path) -> None:
    roberta(tmp_path / "models/some/tiny")
    with HubServer(tmp_path) as hub:
        environment = hub.environment(tmp_path / "cache") | {"RANKLAB_HOME": str(tmp_path / "home")}

        def budget(*options: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", BUDGET, *options]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

        unknown = budget()
        assert unknown.returncode == 2 and hub.requests == []
        assert "not in the cache" in unknown.stderr and "--fetch" in unknown.stderr
        fetched = budget("--fetch")
        assert fetched.returncode == 0 and not any("safetensors" in line for line in hub.requests)
        before = len(hub.requests)
        again = budget()
        assert again.returncode == 0 and len(hub.requests) == before
        assert again.stdout == fetched.stdout


def test_a_comparison_keeps_the_commit_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, heard = [], []

    def fetch(model_id, commit, progress):
        asked.append((model_id, commit))
        progress(0.35, "downloading some/tiny, 35% of 1.0 MB")
        return ModelSource(f"some/tiny@{'a' * 40}", "hub", tmp_path, "a" * 40)

    monkeypatch.setattr(source, "fetch_model", fetch)
    for _ in range(2):
        assert source.fetch_weights("some/tiny", tmp_path / "c1", heard.append).commit == "a" * 40
    assert asked == [("some/tiny", None), ("some/tiny", "a" * 40)]
    assert heard == [{"message": "downloading some/tiny, 35% of 1.0 MB"}, {"message": None}] * 2
    monkeypatch.undo()
    heard.clear()
    embedded = source.fetch_weights("tiny-text", tmp_path / "c2", heard.append)
    assert embedded.described() == {"origin": "embedded", "id": "tiny-text"} and heard == []
    assert not (tmp_path / "c2").exists()
