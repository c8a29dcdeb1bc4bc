"""``bench --what page``: the page's time bars, each beside what was measured in the real page on this machine."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from peft_core.commands import _page_browser as in_browser
from peft_core.commands._made_up_store import fill
from peft_core.commands._output import messages
from peft_core.commands._page_server import Server, served
from peft_core.methods import method_of_part
from peft_core.records import InputError, MethodSpec, RunFailure
from peft_core.training.environment import environment

COLUMNS = ("measurement", "bar", "median", "worst", "unit", "holds", "repeats")
FEWER = 3
"""What takes seconds is measured a third as often."""
TRAINED_WITHIN = 300.0
"""Seconds for a comparison of two runs of six steps."""
_PLAIN = [{"rank": rank} for rank in (6, 8, 16)]
_BOOSTED = [{"rank": 8, "d": 2, "sparsity": sparsity} for sparsity in (0.5, 0.2)]
FIT_PAIRS = [*_PLAIN, *_BOOSTED]
"""The five pairs that the tab begins with."""
TARGETS = ("flat", "decay", "gaussian")


class Bar(NamedTuple):
    """What is measured, and the most that its median may be; None: no bar, a figure to know."""

    measurement: str
    most: float | None
    unit: str


READY = Bar("app's start until the page is served", None, "s")
PAINT = Bar("first paint of the shipped example", None, "s")
UPDATE = Bar("24 curves of 2,000 points, 10 new each: main thread at work", 100, "ms")
WALL = Bar("24 curves: until painted", None, "ms")
SLIDER = Bar("playground at 768 x 768, r 4 to 32: answer", 150, "ms")
LARGEST = Bar("playground at 768 x 768, r = 64, d = 8: answer", 150, "ms")
MOVED = Bar("playground at 768 x 768: slider moved until painted", None, "ms")
FIT = Bar("fit of five pairs at 128 x 128", 3, "s")
OPENED = Bar("10,000 runs: tab clicked until painted", 1, "s")
FILTERED = Bar("10,000 runs: filter typed until painted", 300, "ms")
COLD = Bar("Try it: first answer, models not loaded", None, "s")
WARM = Bar("Try it: further answers", None, "ms")
IN_BROWSER = (PAINT, UPDATE, WALL, MOVED, OPENED, FILTERED)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every row of the page's bars. A bar holds where the median is below it; the worst stands beside it.

    The page runs in a process of its own over stores of its own, first an empty one, then one of 10,000 made-up runs.
    Without a browser its rows are left out, with the reason in `left_out`.
    """
    with tempfile.TemporaryDirectory(prefix="ranklab-bench-") as folder:
        rows, left_out, browser_version = _measured(Path(folder), options.repeats)
    return {
        "what": "time bars of the page; holds: the median is below the bar",
        "rows": rows,
        "left_out": left_out,
        "browser": browser_version,
        "repeats": options.repeats,
        "environment": environment(torch.device("cpu")),
    }


def _measured(folder: Path, repeats: int) -> tuple[list[dict[str, Any]], dict[str, Any] | None, str | None]:
    """Rows, what was left out and why, and the browser's version."""
    empty, many = folder / "empty", folder / "many"
    for place in (empty, many):
        (place / "home").mkdir(parents=True)
    try:
        with in_browser.chromium() as browser:
            rows = [*_over_empty_store(empty, repeats, browser), *_over_many_runs(many, repeats, browser)]
            return rows, None, browser.version
    except InputError as error:
        reason = str(error)
    messages.print(reason, markup=False)
    left_out = {"measurements": [bar.measurement for bar in IN_BROWSER], "reason": reason}
    return list(_over_empty_store(empty, repeats, None)), left_out, None


def _over_empty_store(folder: Path, repeats: int, browser: Any) -> Iterator[dict[str, Any]]:
    with served(folder) as server:
        yield row(READY, [server.seconds_to_ready])
        if browser:
            yield row(PAINT, in_browser.first_paints(browser, server.address, _fewer(repeats)))
            updates = in_browser.chart_updates(browser, server.address, repeats)
            yield from (row(bar, times) for bar, times in zip((UPDATE, WALL), updates, strict=True))
        server.post("playground/sketch", seed=0)
        yield row(SLIDER, [1000 * server.seconds_of("playground/sketch", **body) for body in sketches(repeats)])
        largest = [{"rank": 64, "d": 8, "sparsity": 0.5, "seed": seed} for seed in range(1, repeats + 1)]
        yield row(LARGEST, [1000 * server.seconds_of("playground/sketch", **body) for body in largest])
        if browser:
            yield row(MOVED, in_browser.slider_moves(browser, server.address, repeats))
        yield row(FIT, [server.seconds_of("playground/fit", **body) for body in fits(_fewer(repeats))])
        yield from _answers(server, repeats)


def _over_many_runs(folder: Path, repeats: int, browser: Any) -> Iterator[dict[str, Any]]:
    fill(folder / "home" / "store.sqlite", _methods())
    with served(folder) as server:
        yield row(OPENED, in_browser.runs_opened(browser, server.address, _fewer(repeats)))
        yield row(FILTERED, in_browser.runs_filtered(browser, server.address, repeats))


def _answers(server: Server, repeats: int) -> Iterator[dict[str, Any]]:
    """Of two methods trained for six steps. Cold is the first question since the page was started."""
    methods = [{"id": method_of_part("yardstick").id, "options": {"rank": "2"}}, {"id": method_of_part("floor").id}]
    sizes = {"train_rows": "64", "eval_rows": "40", "seeds": "0", "training": {"steps": "6"}}
    made = server.post("start", model="tiny-text", task="sentiment", methods=methods, **sizes)
    if "id" not in made:
        raise RunFailure(f"the page refused to train: {made}")
    end = time.monotonic() + TRAINED_WITHIN
    while (state := server.get(f"view?id={made['id']}")["state"]) != "finished":
        if state in ("failed", "cancelled") or time.monotonic() > end:
            raise RunFailure(f"what Try it should ask was not trained: it is {state}")
        time.sleep(0.2)
    texts = [{"text": f"A fine film, number {number}."} for number in range(repeats + 1)]
    first, *others = (server.seconds_of("tryit/ask", comparison=made["id"], input=text) for text in texts)
    yield row(COLD, [first])
    yield row(WARM, [1000 * seconds for seconds in others])


def row(bar: Bar, times: Sequence[float]) -> dict[str, Any]:
    """A row of the table. holds: whether the median is below the bar, None without a bar."""
    median = statistics.median(times)
    return {
        "measurement": bar.measurement,
        "bar": bar.most,
        "median": median,
        "worst": max(times),
        "unit": bar.unit,
        "holds": None if bar.most is None else median < bar.most,
        "repeats": len(times),
    }


def sketches(count: int) -> list[dict[str, Any]]:
    """Settings of the sliders, no two with the same seed: nothing that was answered before helps."""
    settings = list(product((4, 8, 16, 32), (1, 2, 4, 8), (0.2, 0.5, 0.9)))
    chosen = (settings[number * 11 % len(settings)] for number in range(count))
    return [{"rank": rank, "d": d, "sparsity": s, "seed": seed} for seed, (rank, d, s) in enumerate(chosen, 1)]


def fits(count: int) -> list[dict[str, Any]]:
    """The five pairs on each kind of target in turns."""
    sizes = {"size": 128, "target_rank": 16}
    return [
        {"target": TARGETS[number % len(TARGETS)], "seed": number, "pairs": FIT_PAIRS, **sizes}
        for number in range(count)
    ]


def _methods() -> list[MethodSpec]:
    yardstick, floor = method_of_part("yardstick").id, method_of_part("floor").id
    boosted = f"{yardstick}:rank=4,boost.d=2,boost.sparsity=0.5"
    return [MethodSpec.parse(text) for text in (f"{yardstick}:rank=4", f"{yardstick}:rank=8", boosted, floor)]


def _fewer(repeats: int) -> int:
    return -(-repeats // FEWER)
