"""Checkpoints under kills, cuts and flipped bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from peft_core.training.checkpoint import DamagedCheckpointError, latest_checkpoint, read_checkpoint, save_checkpoint

TENSORS = {
    "a": torch.arange(12.0).reshape(3, 4),
    "b": torch.tensor(3),
    "c": torch.zeros(0),
    "d": torch.ones(2).bfloat16(),
}


def test_what_is_written_is_read(tmp_path):
    path = save_checkpoint(tmp_path, 7, {"seconds": 1.5}, TENSORS)
    checkpoint = read_checkpoint(path)
    assert checkpoint.step == 7 and checkpoint.state == {"seconds": 1.5}
    assert all(torch.equal(checkpoint.tensors[name], value) for name, value in TENSORS.items())


def test_only_the_last_two_are_kept(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, step, {}, TENSORS)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"step-{s:09d}.safetensors" for s in (3, 4)]


@pytest.mark.parametrize("damage", ["cut", "flip data", "flip header", "empty"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path, damage):
    save_checkpoint(tmp_path, 1, {}, TENSORS)
    path = save_checkpoint(tmp_path, 2, {"seconds": 2.0}, TENSORS)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-5]
    elif damage == "empty":
        content = bytearray()
    else:
        content[-3 if damage == "flip data" else content.index(b"2.0")] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=path.name):
        read_checkpoint(path)
    checkpoint, said = latest_checkpoint(tmp_path)
    assert checkpoint.step == 1 and path.name in said[0]


WRITER = """
import sys, torch
from pathlib import Path
from peft_core.training.checkpoint import save_checkpoint
tensors = {"a": torch.zeros(4_000_000)}
for step in range(10_000):
    save_checkpoint(Path(sys.argv[1]), step, {}, tensors)
    print(step, flush=True)
"""


@pytest.mark.reliability
def test_a_kill_in_the_middle_of_writing_leaves_a_whole_one(tmp_path):
    for delay in (0.01, 0.033, 0.05):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        checkpoint, said = latest_checkpoint(tmp_path)
        assert checkpoint is not None and checkpoint.step >= 2 and not said
        for path in tmp_path.iterdir():
            path.unlink()
