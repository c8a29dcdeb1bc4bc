"""Processes that write checkpoints until they are killed: `python -m tests.reliability.writer FOLDER`.

For every line on standard input one is forked; its id is said on standard output, and then the steps that it wrote.
"""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path

import torch

from peft_core.training.checkpoint import latest_checkpoint, save_checkpoint


def tell(*words: object) -> None:
    """A line in one write, so that a kill leaves no half of it."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for _ in sys.stdin:
        if not (pid := os.fork()):
            found, _said = latest_checkpoint(folder)
            for step in count(found.step + 1 if found else 0):
                save_checkpoint(folder, step, {"step": step}, {"weights": torch.full((1_000_000,), float(step))})
                tell(step)
        tell("pid", pid)
        os.waitpid(pid, 0)
        tell("gone")
