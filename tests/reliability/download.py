"""A server whose comparison downloads its model, and is cancelled: `python -m tests.reliability.download HOME`.

It says on standard output what the comparison said of the download, what the command line shows of it, and how long
the cancelling took.
"""

import json
import sys
import time
from pathlib import Path

from peft_core.commands.compare import _Display
from peft_core.records import ComparisonSpec, MethodSpec, TrainingConfig
from peft_core.runs import Limits, Supervisor

if __name__ == "__main__":
    spec = ComparisonSpec(
        model="some/slow",
        task="acceptability",
        methods=(MethodSpec(id="lora"),),
        seeds=(0,),
        train_rows=32,
        eval_rows=16,
        training=TrainingConfig(steps=2, batch_size=8),
    )
    with Supervisor(Path(sys.argv[1]), limits=Limits(spare=3600)) as supervisor:
        comparison = supervisor.submit(spec)
        until, said = time.monotonic() + 60, None
        while time.monotonic() < until and not (said and "MB" in said):
            time.sleep(0.05)
            said = supervisor.view(comparison).comparison.message
        display = _Display()
        display.show(supervisor.view(comparison))
        asked = time.monotonic()
        supervisor.cancel(comparison)
        supervisor.wait(comparison, 20)
        state = supervisor.view(comparison).comparison.state
        shown = display._progress.tasks[0].description
        print(json.dumps({"said": said, "shown": shown, "state": state, "seconds": time.monotonic() - asked}))
