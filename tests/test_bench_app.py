"""The load of many viewers: what a row says, how the figures come from what was seen, what a viewer asks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from peft_core.cli import main
from peft_core.commands import _usage, bench_app
from peft_core.commands._page_client import Client
from peft_core.commands._usage import Sample
from peft_core.commands._viewers import CLOSING, WATCHING, Seen, files_of
from peft_core.commands.bench_app import Watched, delays, percentile, recorded, row, rows
from peft_core.records import RunFailure
from peft_core.runs.folders import comparison_folder

MIB = 2**20


def watched(**changes) -> Watched:
    """100 s at 10 polls of 1 to 100 ms a second; memory grows from 100 to 104 MiB between second 30 and the end."""
    polls = [[WATCHING, 1.0 + n % 100] for n in range(1000)] + [[CLOSING, 7.0]] * 20
    samples = [
        Sample(float(at), (100 + 4 * (at > 60)) * MIB, 50 * MIB, 0.2 * at, 1.5 * at, 0.1 * at, 2.0 * at)
        for at in range(131)
    ]
    found = {
        "seen": Seen(polls, [[1000.9, "a-0", 1, 2]], [[CLOSING, "TimeoutError: "]], 5),
        "samples": samples,
        "started": 5.0,
        "closing": 105.0,
        "ended": 130.0,
        "recorded": {("a-0", 1): 1000.0, ("a-0", 2): 1000.5},
        "steps": 400,
        "stopped": 0,
    }
    return Watched(**found | changes)


def test_every_row_comes_from_what_was_seen():
    found = {entry["measurement"]: entry for entry in rows(watched())}
    value = {name: entry["value"] for name, entry in found.items()}
    assert [value[bar.measurement] for bar in (bench_app.P50, bench_app.P95, bench_app.P99, bench_app.WORST)] == [
        50.0, 95.0, 99.0, 100.0,
    ]  # fmt: skip
    assert value[bench_app.POLLS.measurement] == 10.0 and value[bench_app.STEPS_MADE.measurement] == 4.0
    assert value[bench_app.EYE95.measurement] == pytest.approx(0.9)
    assert value[bench_app.EYE50.measurement] == pytest.approx(0.4)
    assert value[bench_app.GROWTH.measurement] == pytest.approx(4.0)
    assert value[bench_app.WARM_MEMORY.measurement] == 100 and value[bench_app.WORKERS_MEMORY.measurement] == 50
    cpu = [value[bar.measurement] for bar in (*bench_app.CPU, bench_app.OTHERS_CPU)]
    assert cpu == pytest.approx([0.2, 1.5, 0.1, 0.2])
    assert value[bench_app.GONE_P95.measurement] == 7.0
    assert value[bench_app.FAILED.measurement] == 0 and value[bench_app.GONE_FAILED.measurement] == 1
    assert found[bench_app.GONE_FAILED.measurement]["holds"] is False
    assert all(
        entry["holds"] is not False for name, entry in found.items() if name != bench_app.GONE_FAILED.measurement
    )


def test_a_bar_holds_up_to_it_and_nothing_is_no_figure():
    assert row(bench_app.P95, 250.0)["holds"] is True and row(bench_app.P95, 250.1)["holds"] is False
    assert row(bench_app.P50, 9.0)["holds"] is None
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0 and percentile([4.0], 0.99) == 4.0
    with pytest.raises(RunFailure, match="saw nothing"):
        percentile([], 0.5)
    assert delays(watched(recorded={})) == []


def test_times_of_records_are_read_from_the_workers_own_log(tmp_path):
    folder = comparison_folder(tmp_path, "mf8g4irk")
    folder.mkdir(parents=True)
    said = {"time": "2026-01-02T03:04:05.250+00:00", "run": "mf8g4irk-1", "message": "reports step at step 7"}
    others = [said | {"message": "reports eval at step 7"}, said | {"message": "anything"}]
    (folder / "worker.log").write_text("a print\n" + "\n".join(map(json.dumps, [said, *others])))
    assert recorded(tmp_path, ["mf8g4irk"]) == {("mf8g4irk-1", 7): 1767323045.25}


def test_memory_and_time_are_those_of_the_span():
    samples = watched().samples
    assert _usage.memory_at(samples, 70, 80) == (104 * MIB, 50 * MIB)
    assert _usage.memory_at(samples, 20.2, 20.6) == (100 * MIB, 50 * MIB)
    assert _usage.cores(samples, 10, 20) == pytest.approx((0.2, 1.5, 0.1, 0.2))


def test_the_files_that_a_page_names_are_asked_for_once_and_other_hosts_not():
    page = """<head><script src="./assets/index.js"></script><link href='/theme.css'><link href="https://x.org/y.css">
    <script>for (const name of ["page.js", "form.js"]) add(name);</script>
    <script src="ranklab/static/page.js"></script></head><body><img src="later.png"></body>"""
    found = files_of(page)
    assert found == ["assets/index.js", "theme.css", "ranklab/static/page.js", "ranklab/static/form.js"]


def test_a_viewer_keeps_its_connection_and_asks_again_on_a_new_one_where_the_server_closed_it():
    asked: list[bytes] = []

    async def answers(reader, writer):
        """Two answers on a connection, the second in chunks; then it is closed."""
        for body in (
            b"Content-Length: 7\r\n\r\n" + b'{"a":1}',
            b"Transfer-Encoding: chunked\r\n\r\n1\r\n2\r\n0\r\n\r\n",
        ):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\n" + body)
        await writer.drain()
        writer.close()

    async def ask():
        async with await asyncio.start_server(answers, "127.0.0.1", 0) as server:
            client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            found = [await client.get("one", id="x:y z", after=3)]
            found += [await client.get("two"), await client.get("three")]
            client.close()
            return found

    assert asyncio.run(ask()) == [{"a": 1}, 2, {"a": 1}]
    assert [line.split(b" ")[1] for line in asked] == [b"/one?id=x%3Ay+z&after=3", b"/two", b"/three"]


@pytest.mark.parametrize("name", ["viewers", "duration"])
def test_no_viewers_and_no_time_are_refused(name, capsys):
    assert main(["bench", "--what", "app", f"--{name}", "0"]) == 2
    assert f"{name} is 0; it must be a whole number, at least 1" in capsys.readouterr().err


def test_what_viewers_do_is_what_the_page_does():
    page = (Path(bench_app.ROOT) / "ui" / "static" / "page.js").read_text(encoding="utf-8")
    from peft_core.commands._viewers import LIVE, RESTING

    assert f"const LIVE = {1000 * LIVE:.0f}, RESTING = {1000 * RESTING:.0f};" in page
