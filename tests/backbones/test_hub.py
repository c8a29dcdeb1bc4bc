"""Models of the Hub through its own client, from a server on loopback: what is loaded, refused, kept, tried again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file

from peft_core.backbones._hub_ids import HubId, hub_id
from peft_core.records import InputError
from tests.backbones.hub_client import Client
from tests.hub_server import Fault, HubServer
from tests.miniatures import MINIATURES

MALFORMED = [
    "",
    "  ",
    "../../etc",
    "..",
    "/etc",
    "/etc/passwd",
    "~root",
    "C:\\models\\mine",
    "a/b/c",
    "http://127.0.0.1/some/tiny",
    "some//tiny",
    "some/",
    "some/..",
    "some/.hidden",
    "some/tiny.git",
    "so--me/tiny",
    "some/tiny name",
    "some/tïny",
    "x" * 500,
    f"some/{'x' * 500}",
    "/x" * 600,
    "some/\u202eynit",
    "some/ti\u200bny",
    "some/tiny\0",
    "some/tiny\n",
    "some/tiny@",
    "some/tiny@../main",
    "some/tiny@a//b",
    "some/tiny@main.lock",
    "some/tiny@" + "a" * 200,
]


def repository(root: Path, name: str, *, seed: int = 0, files: tuple[str, ...] = (), **config: object) -> Path:
    """A RoBERTa with a word-level tokenizer, as an author would keep it on the Hub."""
    import torch

    folder = root / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(MINIATURES["roberta"] | config))
    generator = torch.Generator().manual_seed(seed)
    save_file({"roberta.some": torch.randn(100, 64, generator=generator)}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    for file in ("README.md", "pytorch_model.bin", "onnx/model.onnx", "flax_model.msgpack", *files):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("not to be loaded")
    return folder


NEEDED = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[HubServer]:
    with HubServer(root) as server:
        yield server


@pytest.fixture(scope="module")
def environment(hub: HubServer, root: Path) -> dict[str, str]:
    return hub.environment(root / "cache")


@pytest.fixture(scope="module")
def ask(environment: dict[str, str]) -> Iterator[Client]:
    client = Client(environment)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _calm(hub: HubServer) -> None:
    hub.faults.clear()
    hub.requests.clear()


def transfers(hub: HubServer) -> list[str]:
    """Bodies of files that were sent."""
    return [line.split("/")[-1] for line in hub.requests if line.startswith("GET") and "/api/" not in line]


def test_only_what_is_needed_comes_and_comes_once(hub: HubServer, root: Path, ask: Client) -> None:
    repository(root, "some/tiny")
    commit = hub.commit("models", "some/tiny")
    before = ask("info", "some/tiny")
    assert before == {"origin": "hub", "available": False, "parameters": None, "license": "mit", "max_length": 38}
    assert transfers(hub) == ["config.json"], "asking what a model is takes its config alone"
    found = ask("fetch", "some/tiny")
    assert found["files"] == NEEDED
    assert {key: found[key] for key in ("origin", "id", "commit", "pinned", "said")} == {
        "origin": "hub", "id": "some/tiny", "commit": commit, "pinned": f"some/tiny@{commit}", "said": None,
    }  # fmt: skip
    assert sorted(transfers(hub)) == NEEDED
    shares = [share for share, _ in found["heard"]]
    assert shares == sorted(shares) and shares[-1] > 0.0
    assert found["heard"][0] == [0.0, "downloading some/tiny, 0% of 0.0 MB"]
    hub.requests.clear()
    assert ask("fetch", "some/tiny")["heard"] == [] and transfers(hub) == []
    hub.requests.clear()
    pinned = ask("fetch", f"some/tiny@{commit}")
    assert pinned["commit"] == commit and hub.requests == [], "a commit that is here needs no Hub"
    assert ask("info", "some/tiny") == before | {"available": True, "parameters": 6400}


def test_a_commit_stays_while_its_branch_moves(hub: HubServer, root: Path, ask: Client) -> None:
    repository(root, "some/moving")
    first = ask("fetch", "some/moving")["commit"]
    repository(root, "some/moving", seed=1)
    hub.requests.clear()
    assert ask("fetch", "some/moving", first)["commit"] == first and hub.requests == []
    second = ask("fetch", "some/moving")["commit"]
    assert second != first and transfers(hub) == ["model.safetensors"], "what did not change is not sent again"
    assert "no such revision" in ask("fetch", "some/moving@no-such")["error"]


def test_an_old_name_is_followed(hub: HubServer, root: Path, ask: Client) -> None:
    repository(root, "some/renamed")
    hub.moved = {"plain-name": "some/renamed"}
    assert ask("fetch", "plain-name")["files"] == NEEDED
    repository(root, "FacebookAI/roberta-base")
    found = ask("fetch", "roberta-base")
    assert found["id"] == "FacebookAI/roberta-base" and ask("info", "roberta-base")["available"]


@pytest.mark.parametrize(
    ("name", "config", "files", "sentence"),
    [
        ("pickled", {}, (), "only pickled weights (flax_model.msgpack), and only model.safetensors is loaded"),
        ("mapped", {"auto_map": {"AutoModel": "code.Model"}}, (), "config.json asks for Python code (auto_map)"),
        ("coded", {}, ("modeling_own.py",), "holds Python code (modeling_own.py)"),
        ("deep", {}, ("tools/convert.py",), "holds Python code (tools/convert.py)"),
        ("alien", {"model_type": "no-such-architecture"}, (), "architecture 'no-such-architecture' is not supported"),
        ("squeezed", {"quantization_config": {"quant_method": "gptq"}}, (), "its weights are quantised"),
        ("huge", {}, (), "its files take 429 GB, and the disk has room for "),
        ("wide", {}, (), "its weights take 280 GB as float32; this machine has "),
    ],
)
def test_what_is_not_loaded_is_refused_from_metadata(name, config, files, sentence, hub, root, ask) -> None:
    folder = repository(root, f"some/{name}", files=files, **config)
    if name == "pickled":
        (folder / "model.safetensors").unlink()
    hub.sizes = {"some/huge": {"model.safetensors": 400 * 2**30}}
    hub.parameters = {"some/wide": 70_000_000_000}
    for what in ("check", "fetch"):
        said = ask(what, f"some/{name}")
        assert said["error"].startswith(f"model is 'some/{name}'; ") and sentence in said["error"]
        assert "\n" not in said["error"] and said["field"] == "model"
    assert set(transfers(hub)) <= {"config.json"}, "nothing but a config may have been sent"


def test_code_named_by_a_tokenizer_is_refused_before_the_weights(hub, root, ask) -> None:
    folder = repository(root, "some/tokens")
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["else/where--code.Own", null]}}')
    assert "tokenizer_config.json asks for Python code" in ask("fetch", "some/tokens")["error"]
    assert "model.safetensors" not in transfers(hub)


def test_the_owners_limit(root, ask) -> None:
    repository(root, "some/limited")
    limit = {"RANKLAB_MAX_MODEL_GB": "0.00001"}
    assert "RANKLAB_MAX_MODEL_GB allows 0.0" in ask("check", "some/limited", None, limit)["error"]
    assert "must be a number" in ask("check", "some/limited", None, {"RANKLAB_MAX_MODEL_GB": "much"})["error"]


def test_missing_private_and_gated_models_are_told_apart(hub, root, ask) -> None:
    repository(root, "some/gated")
    repository(root, "some/private")
    repository(root, "some/forbidden")
    hub.gated, hub.private = {"some/gated"}, {"some/private"}
    hub.faults += [Fault("some/forbidden", status=403, times=9), Fault("some/login", status=401, times=9)]
    hub.faults.append(Fault("some/gone", status=404, times=9))
    assert "it is gated: accept its terms" in ask("check", "some/gated")["error"]
    for name in ("absent", "private", "gone"):
        assert "the Hub has no such model, or it is private" in ask("check", f"some/{name}")["error"]
    assert "the Hub refuses access to it (status 403)" in ask("check", "some/forbidden")["error"]
    assert "asks for a login" in ask("check", "some/login")["error"]
    assert "embedded models are tiny-" in ask("check", "tiny-nothing")["error"]


def test_a_busy_hub_is_asked_again_but_not_for_ever(hub, root, ask) -> None:
    repository(root, "some/busy")
    wait = {"Retry-After": "3600"}
    hub.faults += [Fault("/api/models/some/busy", status=429, times=2, headers=wait)]
    hub.faults += [
        Fault("some/busy/resolve", status=503, times=2),
        Fault("model.safetensors", status=429, headers=wait),
    ]
    found = ask("fetch", "some/busy")
    assert found["files"] == NEEDED
    pauses = [sentence for _, sentence in found["heard"] if "attempt" in sentence]
    assert pauses[0] == "the Hub is too busy to answer (status 429); attempt 2 of 4 follows in 0.02 s"
    assert any("(status 503); attempt 3 of 4" in sentence for sentence in pauses)
    repository(root, "some/hopeless")
    for status in (429, 500, 504):
        hub.faults[:] = [Fault("some/hopeless", status=status, times=1000, headers=wait)]
        hub.requests.clear()
        said = ask("check", "some/hopeless")["error"]
        assert f"too busy to answer (status {status}), and there is no copy in the cache" in said
        assert len(hub.requests) == 2, "a form waits for the answer"
        hub.requests.clear()
        assert "too busy" in ask("check twice", "some/hopeless")["error"] and len(hub.requests) == 2
        hub.requests.clear()
        assert "too busy" in ask("fetch", "some/hopeless")["error"] and len(hub.requests) == 4
    hub.faults[:] = [Fault("some/hopeless", delay=2.0, times=1)]
    assert ask("check", "some/hopeless") == {}, "one answer that does not come in time is no end"


def test_a_transfer_that_breaks_off_goes_on(hub, root, ask) -> None:
    folder = repository(root, "some/cut")
    size = (folder / "model.safetensors").stat().st_size
    hub.faults += [Fault("/lfs/models/some/cut", cut=9000, method="GET"), Fault("tokenizer.json", cut=1, method="GET")]
    found = ask("fetch", "some/cut")
    assert found["files"] == NEEDED and size > 9000
    assert transfers(hub).count("model.safetensors") == 2 and max(share for share, _ in found["heard"]) <= 1.0


def test_copies_work_without_the_hub(hub, root, ask, environment) -> None:
    repository(root, "some/kept")
    commit = ask("fetch", "some/kept")["commit"]
    hub.faults.append(Fault("some/kept", status=503, times=1000))
    found = ask("fetch", "some/kept")
    assert found["commit"] == commit
    assert found["said"] == (
        f"the Hub is too busy to answer (status 503): the copy of some/kept at commit {commit[:12]} is used"
    )
    offline = Client({**environment, "HF_HUB_OFFLINE": "1"})
    gone = Client({**environment, "HF_ENDPOINT": "http://127.0.0.1:9"})
    try:
        hub.requests.clear()
        off = offline("fetch", "some/kept")
        assert off["commit"] == commit and off["said"].startswith("the Hub is switched off: the copy of")
        assert "is not in the cache, and the Hub is switched off" in offline("check", "some/never-asked")["error"]
        assert gone("fetch", "some/kept")["said"].startswith("the Hub cannot be reached: the copy of")
        assert "cannot be reached, and there is no copy" in gone("check", "some/never-asked")["error"]
        assert hub.requests == []
    finally:
        offline.close()
        gone.close()


def test_parts_of_killed_downloads_are_removed(root: Path, ask: Client, environment: dict[str, str]) -> None:
    repository(root, "some/killed")
    assert ask("check", "some/killed") == {}
    (blobs,) = Path(environment["HF_HOME"]).glob("hub/models--some--killed/blobs")
    for age, name in ((0, "new.incomplete"), (2 * 3600, "old.incomplete")):
        (blobs / name).write_bytes(b"part")
        os.utime(blobs / name, (time.time() - age, time.time() - age))
    ask("fetch", "some/killed")
    assert [file.name for file in blobs.glob("*.incomplete")] == ["new.incomplete"]


def test_a_copy_without_all_of_its_weights_is_none(hub, root, ask) -> None:
    folder = repository(root, "some/shards")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"2" * 20_000)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.faults.append(Fault("00002-of-00002", status=500, times=1000))
    said = ask("fetch", "some/shards")["error"]
    assert "(model-00002-of-00002.safetensors); files that have arrived are kept" in said
    assert not ask("info", "some/shards")["available"]
    hub.faults.clear()
    hub.requests.clear()
    assert set(names) < set(ask("fetch", "some/shards")["files"])
    assert transfers(hub) == names[1:], "the first half was kept"


@pytest.mark.parametrize("model", MALFORMED, ids=lambda text: ascii(text[:30]))
def test_a_malformed_id_reaches_neither_the_hub_nor_a_file(model: str, hub: HubServer, ask: Client) -> None:
    for what in ("check", "info", "fetch"):
        for public in ({}, {"RANKLAB_PUBLIC": "1"}):
            said = ask(what, model, None, public)
            assert said["field"] == "model" and said["error"].count("\n") == 0 and len(said["error"]) < 300
    assert hub.requests == []
    with pytest.raises(InputError):
        hub_id(model)


def test_a_public_page_takes_no_folder(root: Path, hub: HubServer, ask: Client, tmp_path: Path) -> None:
    folder = repository(tmp_path, "mine/own")
    assert ask("check", str(folder)) == {}
    public = {"RANKLAB_PUBLIC": "1"}
    assert "local folders cannot be named on a public page" in ask("check", str(folder), None, public)["error"]
    assert "no such model" in ask("check", "assets/models", None, public)["error"], "a folder here, a Hub id there"
    assert ask("check", "tiny-text", None, public) == {}


def test_ids_in_their_parts() -> None:
    assert hub_id("some/tiny") == HubId("some/tiny", "main") and hub_id("gpt2-xl").repository == "gpt2-xl"
    assert hub_id("some/tiny@refs/pr/3").revision == "refs/pr/3"
    assert hub_id(f"some/tiny@{'0' * 40}").pinned and not hub_id("some/tiny@v1.0").pinned
