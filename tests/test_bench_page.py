"""The page's time bars: what a row says, what is asked, what is said without a browser; never how long it took."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import contextmanager

import pytest

from peft_core.cli import main
from peft_core.commands import _page_server, bench_page
from peft_core.commands.bench_page import IN_BROWSER, TARGETS, fits, row, sketches
from peft_core.playground import FitSpec, clamped
from peft_core.records import RunFailure


class Server:
    """Answers at once, and counts what it is asked."""

    address, seconds_to_ready = "http://127.0.0.1:0/", 2.5

    def __init__(self, state: str = "finished") -> None:
        self.asked, self.state = [], state

    def get(self, path):
        self.asked.append(path)
        return {"state": self.state}

    def post(self, path, **body):
        self.asked.append(path)
        return {"id": "c1"}

    def seconds_of(self, path, **body):
        self.asked.append(path)
        return 0.001 * len(self.asked)


@pytest.fixture
def server(monkeypatch):
    made = Server()

    @contextmanager
    def served(folder):
        assert (folder / "home").is_dir() and not any((folder / "home").iterdir())
        yield made

    monkeypatch.setattr(bench_page, "served", served)
    return made


def test_a_bar_holds_where_the_median_is_below_it():
    found = row(bench_page.FIT, [1.0, 2.0, 9.0])
    assert found == {
        "measurement": "fit of five pairs at 128 x 128",
        "bar": 3,
        "median": 2.0,
        "worst": 9.0,
        "unit": "s",
        "holds": True,
        "repeats": 3,
    }
    assert row(bench_page.FIT, [3.0])["holds"] is False
    assert row(bench_page.COLD, [1.0])["holds"] is None


@pytest.mark.parametrize("missing", ["playwright", "chromium"])
def test_without_a_browser_its_rows_are_left_out_with_the_reason(monkeypatch, capsys, tmp_path, server, missing):
    if missing == "playwright":
        monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    else:
        pytest.importorskip("playwright")
        monkeypatch.setattr(shutil, "which", lambda name: None)
    out = tmp_path / "page.json"
    assert main(["bench", "--what", "page", "--repeats", "4", "--json", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found == json.loads(out.read_text())
    names = [entry["measurement"] for entry in found["rows"]]
    assert len(set(names)) == 6 and not {bar.measurement for bar in IN_BROWSER} & set(names)
    assert found["left_out"]["measurements"] == [bar.measurement for bar in IN_BROWSER]
    assert missing in found["left_out"]["reason"].lower() and missing in printed.err.lower()
    assert found["browser"] is None and found["environment"]["device"] == "cpu"
    repeats = {entry["measurement"]: entry["repeats"] for entry in found["rows"]}
    assert repeats[bench_page.SLIDER.measurement] == repeats[bench_page.WARM.measurement] == 4
    assert repeats[bench_page.FIT.measurement] == 2 and repeats[bench_page.COLD.measurement] == 1
    assert server.asked.count("tryit/ask") == 5


def test_a_page_that_does_not_train_or_is_not_served_is_named(server, tmp_path, monkeypatch):
    server.state = "failed"
    with pytest.raises(RunFailure, match="it is failed"):
        list(bench_page._answers(server, 1))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "app.py").write_text("raise SystemExit('no page today')")
    monkeypatch.setattr(_page_server, "ROOT", broken)
    with pytest.raises(RunFailure, match="no page today"), _page_server.served(tmp_path):
        pass


def test_what_is_asked_can_be_answered_and_is_never_the_same():
    bodies = sketches(40)
    assert len({body["seed"] for body in bodies}) == len(bodies)
    assert len({(body["rank"], body["d"], body["sparsity"]) for body in bodies}) == 40
    for body in bodies:
        sketch, notes = clamped(body)
        assert sketch.shape == (768, 768) and not notes
    specs = [FitSpec(**body) for body in fits(4)]
    assert [spec.target for spec in specs] == [*TARGETS, TARGETS[0]]
    labels = [pair.label for pair in specs[0].pairs]
    assert labels == ["LoRA r=6", "LoRA r=8", "LoRA r=16", "CapaBoost r=8 d=2 s=0.5", "CapaBoost r=8 d=2 s=0.2"]
