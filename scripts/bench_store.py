"""How many events a second the store takes in, and how long readers wait beside that.

    python scripts/bench_store.py --out assets/benchmarks/store.json

One writer applies what many runs report, as a comparison's does: steps in batches.
Beside it readers in processes of their own ask for what is new, as the page does; afterwards, with nobody writing, one
reads as many events, which tells what of the waiting is the reading itself. The bar is 5,000 events a second
sustained on 2 cores. Half a minute; beside the JSON the table is written as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from peft_core.records import ComparisonSpec, MethodSpec, RunState, StateRecord, StepRecord, TrainingConfig
from peft_core.runs import Store
from peft_core.runs.job import as_json
from peft_core.runs.machine import usable_cores
from peft_core.runs.reader import Reader

BAR = 5_000
BATCHES = (1, 10, 100, 500)
RUNS, MOST, ALONE = 16, 400_000, 15
"""Runs at work, events of a measurement at most, and reads with nobody writing."""


def reports(runs: list[str], first: int, count: int) -> list[dict[str, Any]]:
    """So many events from number `first` on: the steps of all runs, in turns."""
    made = []
    for place in range(first, first + count):
        run, step = runs[place % len(runs)], 1 + place // len(runs)
        record = StepRecord(
            run=run,
            step=step,
            loss=1 / step,
            learning_rate=1e-3,
            grad_norm=0.5,
            seconds=0.01 * step,
            flops=1e9 * step,
            adapter_flops_executed=1e6,
            adapter_flops_nominal=1e6,
            active_parameters=1000,
        )
        made.append({"event": as_json(record)})
    return made


def begun(store: Store) -> tuple[str, list[str]]:
    """A comparison whose runs all train."""
    methods = tuple(MethodSpec.parse(f"lora:rank={rank}") for rank in range(1, RUNS + 1))
    spec = ComparisonSpec(model="tiny-text", task="acceptability", methods=methods, training=TrainingConfig(steps=10))
    comparison = store.add(spec, "nobody")
    runs = [run.run for run in store.runs(comparison)]
    store.apply(comparison, [{"event": as_json(StateRecord(run=run, step=0, state=RunState.RUNNING))} for run in runs])
    return comparison, runs


def written(path: Path, batch: int, seconds: float, readers: int) -> dict[str, Any]:
    """Events a second in batches of one size, and the readers' waiting."""
    with closing(Store(path)) as store:
        comparison, runs = begun(store)
        made = [reports(runs, first, batch) for first in range(0, MOST, batch)]
        watching = [_reader(path, comparison, seconds) for _ in range(readers)]
        for reader in watching:
            assert reader.stdout is not None
            reader.stdout.readline()
        applied, times, started = 0, [], time.perf_counter()
        for group in made:
            before = time.perf_counter()
            store.apply(comparison, group)
            times.append(time.perf_counter() - before)
            applied += len(group)
            if time.perf_counter() - started > seconds:
                break
        took = time.perf_counter() - started
        waited = [json.loads(reader.communicate()[0]) for reader in watching]
        with closing(sqlite3.connect(path)) as connection:
            query = "SELECT COUNT(*) FROM events WHERE kind = 'step' AND comparison = ?"
            (stored,) = connection.execute(query, (comparison,)).fetchone()
    assert stored == applied, "every event is stored once"
    reads = sorted(wait for found in waited for wait, _ in found)
    events = round(statistics.median(number for found in waited for _, number in found)) if reads else 0
    return {
        "batch": batch,
        "events": applied,
        "seconds": took,
        "events_a_second": applied / took,
        "write_ms_median": 1000 * statistics.median(times),
        "reads": len(reads),
        "read_ms_median": 1000 * statistics.median(reads) if reads else None,
        "read_ms_p95": 1000 * reads[int(0.95 * (len(reads) - 1))] if reads else None,
        "events_of_a_read": events,
        "alone_ms_median": 1000 * _alone(path, comparison, events) if reads else None,
    }


def _alone(path: Path, comparison: str, events: int) -> float:
    """Seconds that the newest so many events take to be read, while nobody writes."""
    reader, waits = Reader(path), []
    newest = reader.view(comparison, only=()).seq
    for _ in range(ALONE):
        before = time.perf_counter()
        reader.view(comparison, newest - events, only=())
        waits.append(time.perf_counter() - before)
    return statistics.median(waits)


def _reader(path: Path, comparison: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__)), "--read", str(path), comparison, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read(path: Path, comparison: str, seconds: float) -> list[tuple[float, int]]:
    """Asks for what is new five times a second; how long each answer took, and how many events it had."""
    reader, after, waits = Reader(path), 0, []
    print("ready", flush=True)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        view = reader.view(comparison, after, only=())
        waits.append((time.perf_counter() - before, len(view.events)))
        after = view.seq
        time.sleep(0.2)
    return waits


def page(document: dict[str, Any]) -> str:
    """The Markdown table of a document."""
    where = document["environment"]
    lines = [
        "# What the store takes in",
        "",
        f"Written by `scripts/bench_store.py` from the JSON beside it: one writer, {document['readers']} readers in"
        f" processes of their own that ask for what is new five times a second, {RUNS} runs at work; alone: the same"
        " number of events read afterwards, with nobody writing. The bar is"
        f" {BAR:,} events a second. On {where['machine']}, {where['cores']} cores; SQLite {where['sqlite']};"
        f" load of the machine at the end {where['load']:.1f}.",
        "",
        "| events of a batch | events a second | a write, ms | events of a read | a read, ms | p95 | alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        names = ("read_ms_median", "read_ms_p95", "alone_ms_median")
        waits = [f"{row[name]:.1f}" if row[name] is not None else "-" for name in names]
        taken = [f"{row['events_a_second']:,.0f}", f"{row['write_ms_median']:.2f}", f"{row['events_of_a_read']:,}"]
        figures = [*taken, *waits]
        lines.append(f"| {row['batch']} | {' | '.join(figures)} |")
    return "\n".join([*lines, "", "```bash", document["command"], "```", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the store's write rate.")
    parser.add_argument("--out", type=Path, default=Path("assets/benchmarks/store.json"))
    parser.add_argument("--seconds", type=float, default=5.0, help="of writing, for each size of a batch")
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--read", nargs=3, metavar=("STORE", "COMPARISON", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(Path(options.read[0]), options.read[1], float(options.read[2]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            written(Path(folder) / f"store-{batch}.sqlite", batch, options.seconds, options.readers)
            for batch in BATCHES
        ]
    document = {
        "what": "events a second that one writer stores, in batches of so many, with readers beside it",
        "command": shlex.join(["python", "scripts/bench_store.py", *sys.argv[1:]]),
        "bar": BAR,
        "readers": options.readers,
        "rows": rows,
        "environment": {
            "machine": platform.machine(),
            "cores": usable_cores(),
            "sqlite": sqlite3.sqlite_version,
            "load": os.getloadavg()[0],
        },
    }
    from peft_core.training.checkpoint import write_atomically  # brings torch, which the readers need not wait for

    write_atomically(options.out, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    write_atomically(options.out.with_suffix(".md"), page(document).encode())


if __name__ == "__main__":
    main()
