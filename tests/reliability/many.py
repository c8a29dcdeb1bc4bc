"""A server that does 200 runs in a row with a viewer beside: `python -m tests.reliability.many HOME RUNS`.

It says on standard output how many bytes of memory it had after every 20 runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil

from tests.runs.support import comparison, states, supervise

EACH, EVERY = 4, 20

if __name__ == "__main__":
    memory, ended = [], 0
    with supervise(Path(sys.argv[1]), "thread", server=True) as supervisor:
        while ended < int(sys.argv[2]):
            made = supervisor.submit(comparison(methods=EACH, steps=20, step_seconds=0.0005))
            seen = 0
            while not supervisor.wait(made, 0.02):
                seen = supervisor.view(made, seen).seq
            assert {str(state) for state in states(supervisor.view(made))} == {"finished"}
            ended += EACH
            if ended % EVERY == 0:
                memory.append(psutil.Process().memory_info().rss)
    print(json.dumps(memory))
