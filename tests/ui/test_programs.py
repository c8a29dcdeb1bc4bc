"""The functions for programs: over Gradio's own client, on a live server over a supervisor made by hand."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.report.sample import METHODS
from tests.ui.stand_in import StandInEngine, StandInRuns
from ui.launching import serve
from ui.uploads import Uploads


@pytest.fixture(scope="module")
def runs() -> StandInRuns:
    return StandInRuns(pause=0.001)


@pytest.fixture(scope="module")
def address(runs: StandInRuns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    uploads = Uploads(tmp_path_factory.mktemp("home") / "uploads")
    page, address = serve(runs, StandInEngine(), None, uploads, "127.0.0.1")
    yield address
    page.close()


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


def test_only_these_three_can_be_called(address: str) -> None:
    with urllib.request.urlopen(f"{address}gradio_api/info") as answer:
        info = json.load(answer)
    assert list(info["named_endpoints"]) == ["/start", "/status", "/results"]
    assert info["unnamed_endpoints"] == {}
    start = info["named_endpoints"]["/start"]
    assert {"methods", "model", "task", "seeds", "lock"} <= {entry["parameter_name"] for entry in start["parameters"]}
    assert "Start a comparison" in json.dumps(info)


def test_a_program_starts_follows_and_reads_a_comparison(client: Client, runs: StandInRuns) -> None:
    made = client.predict(
        methods=list(METHODS), seeds=[0, 3], training={"steps": 20, "learning_rate": 0.01}, api_name="/start"
    )["id"]
    spec = runs.rows[made].spec
    assert [str(method) for method in spec.methods] == list(METHODS)
    assert (spec.seeds, spec.training.steps, spec.training.learning_rate) == ((0, 3), 20, 0.01)
    end = time.monotonic() + 20
    while not (status := client.predict(made, api_name="/status"))["ended"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert (status["state"], status["progress"], len(status["runs"])) == ("finished", 1.0, 4)
    document = client.predict(made, reference=METHODS[1], api_name="/results")
    assert len(document["runs"]) == 4 and {run["seed"] for run in document["runs"]} == {0, 3}


def test_the_readmes_example_runs(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    exec(code.replace("http://127.0.0.1:7860", address), {})
    printed = capsys.readouterr().out
    assert all(method in printed for method in METHODS)


@pytest.mark.parametrize(
    "bad, said",
    [
        ({"methods": ["lora:rank=0"]}, "rank is 0; it must be"),
        ({"methods": ["lora:rank"]}, "written id or id:key=value"),
        ({"methods": "lora"}, "methods is 'lora'; it must be a list"),
        ({"methods": []}, "it must be a list"),
        ({"methods": ["lora"] * 101}, "it must be a list"),
        ({"methods": ["nothing"]}, "it must be one of lora"),
        ({"methods": ["lora"], "seeds": [True]}, "seeds is True; it must be a list of whole numbers"),
        ({"methods": ["lora"], "seeds": [0, 0]}, "every seed must be given once"),
        ({"methods": ["lora"], "training": {"batch_size": "many"}}, "batch_size is 'many'"),
        ({"methods": ["lora"], "training": {"steps": [1]}}, "an object of texts and numbers"),
        ({"methods": ["lora"], "training": {"nothing": 1}}, "nothing"),
        ({"methods": ["lora"], "comparison": {"lock": "x"}}, "there is no such field"),
        ({"methods": ["lora"], "model": "x" * 3000}, "it must be a short text"),
        ({"methods": ["lora"], "lock": "rank", "lock_to": "capaboost_lora"}, "one of the methods"),
        ({"methods": ["lora"], "lock": "weight"}, "it must be parameters, rank or flops"),
        ({"methods": ["lora"], "task_options": {"x": "y" * 300_000}}, "at most 200000 bytes"),
    ],
)
def test_bad_input_is_one_sentence_and_starts_nothing(client: Client, runs: StandInRuns, bad: dict, said: str) -> None:
    before = len(runs.rows)
    with pytest.raises(AppError) as refused:
        client.predict(**bad, api_name="/start")
    sentence = str(refused.value)
    assert said in sentence and sentence.endswith(".") and "\n" not in sentence and len(sentence) < 400
    assert len(runs.rows) == before


@pytest.mark.parametrize("name", ["/status", "/results"])
def test_an_unknown_comparison_is_one_sentence(client: Client, name: str) -> None:
    with pytest.raises(AppError, match=r"^id is 'nothing'; there is no such comparison\.$"):
        client.predict("nothing", api_name=name)


def test_a_public_page_names_no_file_of_the_server(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANKLAB_PUBLIC", "1")
    with pytest.raises(AppError, match="on a public page it must be a task of the list"):
        client.predict(methods=["lora"], task=str(tmp_path), api_name="/start")


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_page_of_another_site_starts_nothing(address: str, runs: StandInRuns, kind: str | None) -> None:
    before = len(runs.rows)
    body = json.dumps({"data": [["lora"], "tiny-text", "acceptability", [0], {"steps": 2}, {}, {}, "", ""]})
    headers = {"Origin": "https://example.org", **({"Content-Type": kind} if kind else {})}
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    connection.request("POST", "/gradio_api/call/start", body, headers)
    assert connection.getresponse().status >= 400
    connection.close()
    time.sleep(0.3)
    assert len(runs.rows) == before
