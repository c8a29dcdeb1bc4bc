"""A server in a process of its own, for tests that kill it: `python -m tests.reliability.server HOME STEPS`.

It starts a comparison of the stand-in trainer, says on standard output what it started, and waits.
"""

import json
import sys
import time
from pathlib import Path

from tests.runs.support import comparison, reached, supervise

if __name__ == "__main__":
    with supervise(Path(sys.argv[1]), server=True) as supervisor:
        comparison_id = supervisor.submit(comparison(steps=int(sys.argv[2])))
        waiting = supervisor.submit(comparison())
        reached(supervisor, comparison_id, 5)
        while len(supervisor.processes()) < 2:
            time.sleep(0.05)
        print(json.dumps({"id": comparison_id, "waiting": waiting, "workers": supervisor.processes()}), flush=True)
        time.sleep(60)
