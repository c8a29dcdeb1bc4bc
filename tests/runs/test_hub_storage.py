"""Storage in a repository of the Hub, with the Hub's own file system against a server on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from peft_core.records import InputError
from peft_core.runs.storage import Storage
from tests.hub_server import LARGE, Fault
from tests.runs.hub_storage import StorageHub

OWNER, REPOSITORY, TOKEN = "someone", "someone/runs", "hf_writer"
URL = f"hf://datasets/{REPOSITORY}/prefix"


class Node:
    """A node: its methods are those of its Storage. An OSError comes back as a sentence."""

    def __init__(self, hub: StorageHub, home: Path, url: str = URL, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.runs.hub_client", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env=hub.environment(home) | environment,
        )

    def __getattr__(self, method: str):
        return lambda *arguments: self._call(method, *arguments)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(10)

    def _call(self, method: str, *arguments: object):
        self._process.stdin.write(json.dumps([method, *map(str, arguments)]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer[0] if isinstance(answer, list) else answer


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Hub with a private repository, and two nodes that may write there."""
    folder = tmp_path_factory.mktemp("hub")
    with ExitStack() as stack:
        hub = stack.enter_context(StorageHub(folder / "root", private={REPOSITORY}, writers={TOKEN: OWNER}))
        hub.place(REPOSITORY)
        # A page that is open to all has its workers use no token by themselves; its storage uses it all the same.
        public = {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
        one = stack.enter_context(Node(hub, folder / "one", **public))
        other = stack.enter_context(Node(hub, folder / "other", HF_TOKEN=TOKEN))
        yield hub, one, other


@pytest.fixture
def nodes(cluster):
    """The Hub with an empty repository, and the nodes."""
    hub, one, other = cluster
    for path in sorted(hub.place(REPOSITORY).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for record in (hub.requests, hub.deleted, hub.commit_messages, hub.faults):
        record.clear()
    return hub, one, other


def test_a_file_that_one_node_replaces_is_seen_anew_by_the_other(nodes, tmp_path):
    hub, one, other = nodes
    file, back = tmp_path / "one", tmp_path / "back"
    assert other.get("runs/a/one", back) is False and other.names("runs/a") == []
    for content in (b"1", b"22", b"33", b"4" * (LARGE + 1)):
        file.write_bytes(content)
        assert one.put(file, "runs/a/one") is None
        assert other.names("runs/a") == ["one"]
        assert other.get("runs/a/one", back) is True and back.read_bytes() == content
    assert (hub.place(REPOSITORY) / "prefix" / "runs" / "a" / "one").stat().st_size == LARGE + 1
    assert len(hub.commit_messages) == 4, "a commit for every change"
    assert other.get("runs/a/none", tmp_path / "none") is False and not (tmp_path / "none").exists()
    assert not list(tmp_path.glob(".*.part"))


def test_large_files_take_the_way_of_large_files(nodes, tmp_path):
    hub, one, other = nodes
    file, back = tmp_path / "step-000000005.safetensors", tmp_path / "back"
    file.write_bytes(bytes(range(256)) * 200)
    one.put(file, "runs/a/checkpoints/step-000000005.safetensors")
    assert any(request.startswith("PUT /upload/") for request in hub.requests)
    assert other.get("runs/a/checkpoints/step-000000005.safetensors", back) is True
    assert back.read_bytes() == file.read_bytes()


def test_what_one_node_removes_is_gone_for_the_other(nodes, tmp_path):
    hub, one, other = nodes
    folder = tmp_path / "here"
    (folder / "sub" / "deep").mkdir(parents=True)
    for name in ("two", "sub/one", "sub/deep/three"):
        (folder / name).write_text(name)
    one.put_folder(folder, "runs/a")
    one.put(folder / "two", "runs/ab/two")
    assert other.names("runs/a") == ["sub/deep/three", "sub/one", "two"]
    assert other.names("runs") == ["a/sub/deep/three", "a/sub/one", "a/two", "ab/two"]
    other.get_folder("runs/a", tmp_path / "back")
    assert (tmp_path / "back" / "sub" / "deep" / "three").read_text() == "sub/deep/three"
    for _ in range(2):
        assert one.drop("runs/a/two") is None
    assert other.drop("runs/a/two") is None, "it knew the file before"
    assert other.names("runs/a") == ["sub/deep/three", "sub/one"]
    for node in (one, other):
        assert node.remove("runs/a") is None
    assert one.names("runs/a") == [] and one.names("runs/ab") == ["two"]
    assert sorted(hub.deleted) == [f"prefix/runs/a/{name}" for name in ("sub/deep/three", "sub/one", "two")]


def test_a_commit_is_made_again_where_another_one_came_between(nodes, tmp_path):
    hub, one, other = nodes
    (tmp_path / "one").write_bytes(b"1")
    hub.faults += [Fault("/commit/", status=412, method="POST"), Fault("/commit/", status=409, method="POST")]
    assert one.put(tmp_path / "one", "runs/a/one") is None
    assert other.names("runs/a") == ["one"] and not any(fault.times for fault in hub.faults)


def test_a_refusal_is_no_missing_file(nodes, tmp_path):
    hub, one, _ = nodes
    (tmp_path / "one").write_bytes(b"1")
    one.put(tmp_path / "one", "a")
    for method, arguments in (("get", ("a", tmp_path / "back")), ("names", ("runs",)), ("drop", ("a",))):
        hub.faults.append(Fault("/tree/", status=403))
        assert "403" in getattr(one, method)(*arguments)
    assert not (tmp_path / "back").exists() and one.get("a", tmp_path / "back") is True


def test_a_repository_that_is_hidden_or_not_there_is_told(nodes, tmp_path):
    hub, one, _ = nodes
    (tmp_path / "one").write_bytes(b"1")
    one.put(tmp_path / "one", "a")
    with Node(hub, tmp_path / "stranger") as stranger:
        for said in (
            stranger.get("a", tmp_path / "back"),
            stranger.names("runs"),
            stranger.put(tmp_path / "one", "a"),
            stranger.remove("runs"),
        ):
            assert said.startswith("OSError: ") and "repository not found" in said and "token" in said
    assert not (tmp_path / "back").exists()


def test_a_model_repository_is_listed_by_either_of_its_names(nodes, tmp_path):
    hub, _, _ = nodes
    folder = hub.folder("models", REPOSITORY) / "prefix" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "one").write_bytes(b"1")
    urls = (f"hf://models/{REPOSITORY}/prefix", f"hf://{REPOSITORY}/prefix", f"hf://{REPOSITORY}@main/prefix")
    with ExitStack() as stack:
        readers = [stack.enter_context(Node(hub, tmp_path / "reader", url, HF_TOKEN=TOKEN)) for url in urls]
        assert [reader.names("runs") for reader in readers] == [["one"]] * 3


def test_a_network_that_fails_is_an_os_error(nodes, tmp_path):
    hub, _, _ = nodes
    nowhere = {"HF_TOKEN": TOKEN, "HF_ENDPOINT": "http://127.0.0.1:9"}
    with Node(hub, tmp_path / "cut off", **nowhere) as node:
        assert node.names("runs").startswith("OSError: Connect")


@pytest.mark.parametrize("url", ["hf://", "hf://datasets/someone", "hf://runs"])
def test_a_url_without_a_repository_is_refused(url):
    with pytest.raises(InputError, match="it must be a URL that fsspec can open"):
        Storage(url)
