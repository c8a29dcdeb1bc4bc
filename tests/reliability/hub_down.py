"""Comparisons on a Hub that is busy, then gone: `python -m tests.reliability.hub_down HOME`.

It says on standard output what each of them came to and the sentences that were shown meanwhile. For a line on standard
input it goes on to the next.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from peft_core.records import InputError
from peft_core.runs import Supervisor
from tests.reliability.support import real
from tests.runs.support import states


def outcome(supervisor: Supervisor, model: str) -> dict[str, object]:
    """How a comparison ended, and every message that it showed."""
    try:
        made = supervisor.submit(real(model=model, train_rows=32, eval_rows=16, training={"steps": 2}))
    except InputError as error:
        return {"refused": str(error)}
    shown, changes = [], 0
    while not supervisor.wait(made, 0):
        changes = supervisor.wait_for_change(changes, 1.0)
        message = supervisor.view(made).comparison.message
        shown += [message] if message and message not in shown else []
    view = supervisor.view(made)
    return {"states": states(view), "errors": [run.error for run in view.runs], "shown": shown}


if __name__ == "__main__":
    with Supervisor(Path(sys.argv[1]), executor="thread") as supervisor:
        for line in sys.stdin:
            print(json.dumps(outcome(supervisor, line.strip())), flush=True)
