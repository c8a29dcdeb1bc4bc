"""A server and its workers while the clock jumps: `python -m tests.reliability.jumps HOME SHIFT`, under `clock.c`.

It says on standard output what was seen of three comparisons, the first of which trained while the clock went a day
forth, the second while it went two days back.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from tests.runs.support import comparison, reached, states, steps_of, supervise


def wrapped(home: Path) -> str:
    """A Python whose clock is ours, too: a worker gets no LD_PRELOAD from its parent."""
    script = home / "python"
    given = " ".join(f"{name}='{os.environ[name]}'" for name in ("LD_PRELOAD", "CLOCK_SHIFT"))
    script.write_text(f"#!/bin/sh\nexport {given}\nexec '{sys.executable}' \"$@\"\n")
    script.chmod(0o700)
    return str(script)


if __name__ == "__main__":
    home, shift = Path(sys.argv[1]), Path(sys.argv[2])
    sys.executable = wrapped(home)
    found, made, began = [], [], time.monotonic()
    with supervise(home, server=True) as supervisor:
        for jump in (86_400, -86_400, 0):
            made.append(supervisor.submit(comparison(steps=60, show_clock=True)))
            reached(supervisor, made[-1], 20)
            shift.write_text(str(jump))
            assert supervisor.wait(made[-1], 60)
            view = supervisor.view(made[-1])
            seqs = [event["seq"] for event in view.events]
            found.append(
                {
                    "states": states(view),
                    "steps": [steps_of(view, number) for number in range(2)],
                    "in order": seqs == sorted(set(seqs)),
                    "clock": view.comparison.environment["clock"],
                    "created": view.comparison.created,
                    "eta": view.comparison.eta_seconds,
                    "errors": [run.error for run in view.runs],
                }
            )
        newest_first = [row.id for row in supervisor.comparisons()] == made[::-1]
    print(json.dumps({"found": found, "newest first": newest_first, "seconds": time.monotonic() - began}))
