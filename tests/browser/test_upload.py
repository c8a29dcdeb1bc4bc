"""Data of one's own and the papers' settings, through the page, over the real engine."""

from __future__ import annotations

import gzip
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, Visitor, get
from tests.browser.test_compare import open_form, wait_for_points, write

pytestmark = pytest.mark.browser

SLOW = 40_000
"""Milliseconds for what may have to import the engine first."""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Reviews whose longest texts are remarks that a guess takes for the text; one cell would be markup."""
    rows = ["comment,words,mood"]
    for number in range(120):
        remark = "seen on a rainy evening with friends" if number else "<img src=x onerror=alert(1)>"
        rows.append(
            f"{remark} {number},{'great' if number % 2 else 'dull'} film {number},{'good' if number % 2 else 'bad'}"
        )
    path = tmp_path / "my reviews.csv.gz"
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    return path


def choose(page: Page, field: str, value: str) -> None:
    select = page.locator(f'[data-field="{field}"] select')
    select.focus()
    select.select_option(value)


def upload(page: Page, path: Path) -> None:
    choose(page, "task", "own:file")
    page.locator("#rl-file").set_input_files(path)
    expect(page.locator(".rl-found")).to_contain_text("rows", timeout=SLOW)


def test_a_table_is_uploaded_corrected_and_trained_on(visitor: Visitor, table: Path) -> None:
    page = visitor.open("#c=example")
    open_form(page)
    upload(page, table)
    found = page.locator(".rl-found")
    expect(page.locator(".rl-kept")).to_have_text("my_reviews.csv.gz")
    expect(page.locator('[data-field="task_options.text"] option').first).to_have_text("comment (guess)")
    expect(found.locator("tbody td").first).to_contain_text("<img src=x")
    expect(found.locator(".rl-balance")).to_contain_text("60 (50 %)")
    expect(found.locator(".rl-tokens")).to_contain_text("none is longer than 256", timeout=SLOW)

    choose(page, "task_options.text", "words")
    expect(found.locator("tbody td").first).to_have_text("dull film 0", timeout=SLOW)
    expect(page.locator('[data-field="task_options.text"] select')).to_be_focused()
    short = {"training.steps": "12", "training.batch_size": "8", "seeds": "0"}
    for field, text in short.items():
        write(page, field, text)
    page.locator(".rl-form button[type=submit]").click()
    expect(page.locator(".rl-recent option:checked")).to_contain_text("my_reviews.csv.gz on tiny-text", timeout=SLOW)
    expect(page.locator(".rl-state")).to_have_attribute("data-state", "finished", timeout=90_000)
    expect(page.locator('[data-chart="score"] .rl-title')).to_have_text("Accuracy")
    assert "--task-option text=words" in page.locator("section .rl-panel .rl-command").inner_text()
    expect(page.locator(".rl-card-score").first).to_contain_text(".")


def test_what_is_wrong_with_a_table_is_said_and_stops_the_start(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.open("#c=example")
    open_form(page)
    before = page.locator(".rl-recent").input_value()
    path = tmp_path / "one.csv"
    path.write_text("text,label\n" + "a film,good\n" * 40)
    upload(page, path)
    expect(page.locator(".rl-problem")).to_contain_text("good")
    page.locator(".rl-form button[type=submit]").click()
    expect(page.locator('[data-field="task"] .rl-error')).to_contain_text("good", timeout=SLOW)
    assert page.locator(".rl-recent").input_value() == before
    wrong = tmp_path / "x.exe"
    wrong.write_text("MZ")
    page.locator("#rl-file").set_input_files(wrong)
    expect(page.locator("#rl-file-error")).to_contain_text("a table ends in .csv")


def test_a_model_of_any_name_and_a_benchmark_with_a_papers_settings(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.open("#c=example")
    open_form(page)
    expect(page.locator('optgroup[label="Benchmarks from the Hub"]')).to_be_attached(timeout=SLOW)
    choose(page, "task", "glue/cola")
    page.locator("#rl-preset").select_option("capaboost/roberta-base/capaboost_lora:d=2,rank=32")
    expect(page.locator('[data-field="training.epochs"] input')).to_have_value("40")
    expect(page.locator('[data-field="training.weight_decay"] input')).to_have_value("0.1")
    expect(page.locator('[data-field="methods.0.rank"] input')).to_have_value("32")
    expect(page.locator('[data-field="task_options.protocol"] select')).to_have_value("propetl")
    expect(page.locator(".rl-row")).to_have_count(1)
    page.get_by_role("button", name="Use roberta-base").click()
    expect(page.locator('[data-field="model"] select')).to_have_value("roberta-base")
    choose(page, "model", "other:")
    page.locator('[data-field="model"] input').fill(str(tmp_path))
    page.locator(".rl-form button[type=submit]").click()
    expect(page.locator('[data-field="model"] .rl-error')).to_contain_text("holds no config.json", timeout=SLOW)
    page.reload()
    expect(page.locator('[data-field="model"] input')).to_have_value(str(tmp_path), timeout=SLOW)
    expect(page.locator('[data-field="task"] select')).to_have_value("glue/cola")


def test_the_panel_fits_a_phone(visitor: Visitor, table: Path) -> None:
    page = visitor.open("#c=example")
    page.set_viewport_size({"width": 390, "height": 800})
    wait_for_points(page, "score", 0)
    if not page.locator(".rl-form").is_visible():
        page.locator(".rl-formbox > summary").click()
    expect(page.locator(".rl-form button[type=submit]")).to_be_visible(timeout=SLOW)
    upload(page, table)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for box in (".rl-form", ".rl-own", ".rl-found"):
        assert page.evaluate(
            "(box) => { const e = document.querySelector(box); return e.scrollWidth <= e.clientWidth }", box
        )


def test_an_upload_that_breaks_off_leaves_nothing(app: App) -> None:
    host, port = app.address.removeprefix("http://").rstrip("/").split(":")
    kept = set((app.home / "uploads").glob("*"))
    head = f"POST /ranklab/upload?name=x.csv HTTP/1.1\r\nHost: {host}\r\nContent-Length: 90000000\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall((head + "Content-Type: application/octet-stream\r\n\r\n").encode() + b"x" * 3_000_000)
        wait_until(lambda: set((app.home / "uploads").glob("*")) > kept)
    wait_until(lambda: set((app.home / "uploads").glob("*")) == kept)


def wait_until(done: Callable[[], bool], limit: float = 10) -> None:
    end = time.monotonic() + limit
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def memory(process: int, key: str) -> int:
    """MiB of a process: VmRSS now, VmHWM at most since that was reset."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) // 1024


def settled(read: Callable[[], int], still: float = 1, limit: float = 40) -> int:
    """What is read once it has been the same for a while: the engine is imported by then."""
    value, since, end = read(), time.monotonic(), time.monotonic() + limit
    while time.monotonic() - since < still and time.monotonic() < end:
        time.sleep(0.1)
        if read() != value:
            value, since = read(), time.monotonic()
    return value


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak of memory from /proc")
def test_a_large_upload_is_never_in_memory_as_a_whole(app: App) -> None:
    content = (b"text,label\n" + b"a film that was good,1\na film that was bad,0\n" * 6_000_000)[: 200 * 2**20]
    get(app, "catalogue")
    before = settled(lambda: memory(app.process, "VmRSS"))
    Path(f"/proc/{app.process}/clear_refs").write_text("5")  # the peak begins anew
    request = urllib.request.Request(f"{app.address}ranklab/upload?name=large.csv", content, method="POST")
    request.add_header("Content-Type", "application/octet-stream")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert b"large.csv" in answer.read()
    assert memory(app.process, "VmHWM") - before < 60


def test_no_address_gives_an_upload_away(app: App) -> None:
    request = urllib.request.Request(f"{app.address}ranklab/upload?name=private.csv", b"text,label\n", method="POST")
    request.add_header("Content-Type", "application/octet-stream")
    with urllib.request.urlopen(request, timeout=60) as answer:
        path = json.load(answer)["task"]
    assert Path(path).is_relative_to(app.home)
    store = next(file for file in app.home.iterdir() if file.is_file())
    for file in (path, store):
        for address in (f"gradio_api/file={file}", f"file={file}", f"ranklab/static/..%2f..%2f..{file}"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(app.address + address, timeout=10)
            assert refused.value.code in (403, 404)
