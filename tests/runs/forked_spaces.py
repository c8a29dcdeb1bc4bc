"""A stand-in for the package `spaces` on ZeroGPU: the generator runs in a forked process, and all that goes in and
comes out is pickled. What the real one asks its host for is left out."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CONTEXT = multiprocessing.get_context("fork")
calls: list[int] = []
"""The lengths that calls were made with."""
children: list[int] = []


def GPU(task: Callable[..., Any] | None = None, *, duration: int = 60) -> Callable[..., Any]:  # noqa: N802
    if task is None:
        return lambda given: GPU(given, duration=duration)

    def decorated(*arguments: Any) -> Iterator[Any]:
        calls.append(duration)
        results, stop = CONTEXT.SimpleQueue(), CONTEXT.Event()
        work = pickle.dumps(arguments)
        process = CONTEXT.Process(target=_child, args=(task, work, results, stop), daemon=True)
        process.start()
        children.append(process.pid)
        threading.Thread(
            target=lambda: (process.join(), results.put(pickle.dumps(("gone", None)))), daemon=True
        ).start()
        while True:
            kind, value = pickle.loads(results.get())  # noqa: S301
            if kind == "end":
                return
            if kind == "gone":
                raise RuntimeError("GPU task aborted")
            if kind == "error":
                raise RuntimeError(value)
            try:
                yield value
            except GeneratorExit:
                stop.set()
                process.join(5)
                raise

    return decorated


def _child(task: Callable[..., Any], work: bytes, results: Any, stop: Any) -> None:
    def run() -> None:
        try:
            generator = task(*pickle.loads(work))  # noqa: S301
            for value in generator:
                results.put(pickle.dumps(("ok", value)))
                if stop.is_set():
                    generator.close()
                    return
            results.put(pickle.dumps(("end", None)))
        except Exception as error:  # noqa: BLE001
            results.put(pickle.dumps(("error", type(error).__name__)))

    with ThreadPoolExecutor(1) as threads:
        threads.submit(run).result()
