"""kill -9 at any moment of writing a checkpoint: the newest that was told of is whole, half files are swept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from peft_core.training.checkpoint import latest_checkpoint

pytestmark = pytest.mark.reliability
KILLS = 20


def half_files(folder: Path) -> set[str]:
    return {file.name for file in folder.glob(".*.tmp")}


def stop_with_half_a_file(pid: int, folder: Path, before: set[str]) -> None:
    """Stop a process at a moment at which it has begun a file and not finished it."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if half_files(folder) - before:
            os.kill(pid, signal.SIGSTOP)
            while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
                time.sleep(0.001)
            if half_files(folder) - before:
                return
            os.kill(pid, signal.SIGCONT)
    raise AssertionError("no half file was ever seen")


def test_whenever_the_kill_comes_the_last_checkpoint_is_whole(tmp_path):
    command = [sys.executable, "-m", "tests.reliability.writer", str(tmp_path)]
    told = halves = 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writers:
        for number in range(KILLS):
            before = half_files(tmp_path)
            writers.stdin.write("one more\n")
            writers.stdin.flush()
            pid, lines = None, []
            while pid is None or not lines:
                line = writers.stdout.readline().split()
                pid = int(line[1]) if line[0] == "pid" else pid
                lines += [int(line[0])] if line[0] != "pid" else []
            if number % 2:
                stop_with_half_a_file(pid, tmp_path, before)
            else:
                time.sleep(0.001 * number)
            os.kill(pid, signal.SIGKILL)
            while (line := writers.stdout.readline().strip()) != "gone":
                lines.append(int(line))
            told = max(told, *lines)
            halves += bool(half_files(tmp_path) - before)
            checkpoint, said = latest_checkpoint(tmp_path)
            assert not said and checkpoint.step in (told, told + 1), "told of, or renamed and not told of any more"
            assert checkpoint.state == {"step": checkpoint.step}
            assert torch.all(checkpoint.tensors["weights"] == checkpoint.step)
            assert len(half_files(tmp_path)) <= 1, "what an earlier kill left is swept by the next checkpoint"
        writers.stdin.close()
    assert halves >= KILLS // 2
