"""Data sets of the Hub through the real clients, from a server on loopback that can fail in the ways the Hub does."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from peft_core.records import InputError
from peft_core.tasks import get_task
from peft_core.tasks._benchmark_table import BENCHMARKS
from tests.hub_server import Fault, HubServer

COLUMNS = {"text": "review", "label": "stars"}


def repository(root: Path, name: str, rows: int = 60, **more: object) -> Path:
    """A data set of Parquet files: 60 training and 20 test reviews, each of one to three stars."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = root / "datasets" / name
    (folder / "data").mkdir(parents=True)
    for split, count in (("train", rows), ("test", 20)):
        table = {"review": [f"{split} text {row}" for row in range(count)], "stars": [row % 3 for row in range(count)]}
        pq.write_table(pa.table({**table, **more} if split == "train" else table), folder / f"data/{split}-0.parquet")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


def images(root: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    cells = []
    for shade in range(24):
        data = io.BytesIO()
        Image.new("RGB", (20, 16), (shade * 10, 0, 0)).save(data, "PNG")
        cells.append({"bytes": data.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    folder = root / "datasets/some/pictures"
    folder.mkdir(parents=True)
    table = pa.table({"img": pa.array(cells, kind), "label": [row % 2 for row in range(24)]})
    pq.write_table(table, folder / "train.parquet")


CLIENT = """
import json, sys
from peft_core.records import InputError
from peft_core.tasks import _hub, get_task

_hub.PAUSE = 0.01
for name, options in json.loads(sys.argv[1]):
    try:
        task = get_task(name, options)
        rows = task.rows("eval", min(4, task.info.max_eval_rows), 0, options)
        column = next(iter(rows.columns.values()))
        said = {"info": [task.info.kind, task.info.max_train_rows, task.info.max_eval_rows],
                "shape": list(column.shape) if hasattr(column, "shape") else sorted(column)[:1],
                "from": task.provenance(options)}
    except InputError as error:
        said = {"error": str(error)}
    print(json.dumps(said))
"""


def asked(environment: dict[str, str], wanted: list[tuple[str, dict[str, object]]]) -> list[dict[str, object]]:
    """What a client in a process of its own finds."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(wanted)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_the_hub_and_the_ways_it_fails(tmp_path):
    for name in ("good", "busy", "hopeless", "broken", "large", "gated", "moved"):
        repository(tmp_path, f"some/{name}")
    repository(tmp_path, "some/cut", rows=3000)
    images(tmp_path)
    script = tmp_path / "datasets/some/scripted"
    script.mkdir()
    (script / "scripted.py").write_text("raise SystemExit('a script of the Hub ran')")
    faults = [
        Fault("/api/datasets/some/busy", status=429, times=2),
        Fault("some/hopeless", status=429, times=1000),
        Fault("some/broken", status=500, times=1000),
        Fault("/lfs/datasets/some/cut", cut=5000, times=1, method="GET"),
    ]
    sizes = {"some/large": {"data/train-0.parquet": 400 * 2**30}}
    wanted = ["good", "busy", "cut", "hopeless", "broken", "large", "gated", "none", "scripted"]
    with HubServer(tmp_path, gated={"some/gated"}, sizes=sizes, faults=faults) as hub:
        environment = hub.environment(tmp_path / "cache")
        commit = hub.commit("datasets", "some/good")
        found = asked(
            environment,
            [
                *((f"hub:some/{name}", COLUMNS) for name in wanted),
                ("hub:some/good", {**COLUMNS, "revision": "no-such"}),
                ("hub:some/good", {**COLUMNS, "text": "body"}),
                ("hub:some/good", {**COLUMNS, "eval_split": "dev"}),
                ("hub:some/pictures", {"image": "img"}),
            ],
        )
        assert sum("GET /lfs/datasets/some/cut" in line for line in hub.requests) == 2, (
            "redirected, broken off, asked again"
        )
        assert not any("large/resolve" in line or "scripted/resolve" in line for line in hub.requests)
    for name, said in zip(wanted[:3], found, strict=False):
        assert said["info"] == ["classification", 3000 if name == "cut" else 60, 20], (name, said)
    assert found[0]["from"]["train"] == {
        "repository": "some/good", "configuration": None, "commit": commit, "split": "train", "rows": 60,
    }  # fmt: skip
    sentences = [
        "the Hub is busy (429) and was asked 3 times",
        "the Hub answers with error 500 and was asked 3 times",
        "it holds 400 GiB; at most 60 GiB are downloaded",
        "it is gated: accept its terms",
        "the Hub has no such data set, or it is private",
        "its rows come from a script (scripted.py), and code from the Hub is never run",
        "the Hub has no such revision of it",
        "the columns are review, stars",
        "the splits are train, test",
    ]
    for sentence, said in zip(sentences, found[3:], strict=False):
        assert sentence in said["error"], said
    assert found[-1]["info"] == ["image_classification", 20, 4] and found[-1]["shape"] == [4, 16, 16, 3]
    again, new = asked(environment, [("hub:some/good", COLUMNS), ("hub:some/moved", COLUMNS)])
    assert again["from"] == found[0]["from"], "what was loaded once needs no Hub"
    assert "cannot be reached" in new["error"]
    (off,) = asked({**environment, "HF_HUB_OFFLINE": "1"}, [("hub:some/moved", COLUMNS)])
    assert "not in the cache, and the Hub is switched off" in off["error"]


def test_strangers_do_not_use_the_login_of_the_owner(tmp_path):
    repository(tmp_path, "some/good")
    with HubServer(tmp_path) as hub:
        for place, public in (("owners", {}), ("public", {"RANKLAB_PUBLIC": "1"})):
            home = tmp_path / place
            home.mkdir()
            (home / "token").write_text("hf_" + "x" * 34)
            hub.logins.clear()
            (found,) = asked({**hub.environment(home), **public}, [("hub:some/good", COLUMNS)])
            assert found["info"] == ["classification", 60, 20], found
            assert bool(hub.logins) == (not public), hub.logins


def benchmarks(root: Path) -> None:
    """Three benchmarks in the form that the Hub has them in, with a few rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    spans = [{"text": ["mill"], "answer_start": [4]}] * 12
    pairs = [{"ro": f"unu {row}", "en": f"one {row}"} for row in range(12)]
    tables = {
        ("nyu-mll/glue", "rte", "validation"): {
            "sentence1": [f"a {row}" for row in range(12)],
            "sentence2": ["b"] * 12,
            "label": [row % 2 for row in range(12)],
        },
        ("rajpurkar/squad", "plain_text", "validation"): {
            "context": ["the mill"] * 12, "question": [f"q {row}" for row in range(12)], "answers": spans,
        },
        ("wmt/wmt16", "ro-en", "test"): {"translation": pairs},
    }  # fmt: skip
    for (name, configuration, held), columns in tables.items():
        folder = root / "datasets" / name
        (folder / configuration).mkdir(parents=True)
        for split in ("train", held):
            pq.write_table(pa.table(columns), folder / configuration / f"{split}-00000-of-00001.parquet")
        (folder / "README.md").write_text(
            f"---\nconfigs:\n- config_name: {configuration}\n  data_files:\n"
            + "".join(f"  - split: {split}\n    path: {configuration}/{split}-*\n" for split in ("train", held))
            + "---\n"
        )


def test_benchmarks_come_from_the_hub_at_their_commit_and_then_from_the_cache(tmp_path):
    benchmarks(tmp_path)
    pinned = {BENCHMARKS[name].repository: BENCHMARKS[name].revision for name in ("glue/rte", "squad")}
    wanted: list[tuple[str, dict[str, object]]] = [("glue/rte", {}), ("squad", {}), ("wmt16/ro-en", {})]
    with HubServer(tmp_path, commits=pinned) as hub:
        environment = hub.environment(tmp_path / "cache")
        environment.pop("RANKLAB_DATA", None)
        newest = hub.commit("datasets", "wmt/wmt16")
        first = asked(environment, wanted)
    again = asked({**environment, "HF_HUB_OFFLINE": "1"}, wanted)
    commits = [*pinned.values(), newest]
    for kind, commit, was, now in zip(
        ("pair_classification", "span_qa", "generation"), commits, first, again, strict=True
    ):
        assert was["from"]["train"]["commit"] == now["from"]["train"]["commit"] == commit
        assert now["info"] == [kind, 12, 12]
    assert [said["shape"] for said in again] == [said["shape"] for said in first]
    assert first[2]["shape"][0].startswith("unu")


@pytest.mark.parametrize(
    "name",
    [
        "../../etc",
        "/etc/passwd",
        "http://host/a",
        "a/b/c",
        "a/" + "b" * 500,
        "a/\u202eb",
        "a/b\n",
        "a/..",
        "a",
        "",
        "a//b",
    ],
)
def test_ids_that_are_none_are_refused_before_any_request(name):
    with pytest.raises(InputError, match="is written hub:owner/name"):
        get_task(f"hub:{name}")
