"""ZeroGPU hardware of Hugging Face Spaces: a GPU is lent for the length of one decorated call."""

from __future__ import annotations

import importlib
import os

from peft_core.records import InputError
from peft_core.runs.borrowed import BorrowedExecutor, reports_of
from peft_core.runs.job import DEFAULT_TRAINER


def on_zero_gpu() -> bool:
    """Whether this is a Space on ZeroGPU hardware."""
    return os.environ.get("SPACES_ZERO_GPU", "").strip().lower() in ("1", "t", "true")


def borrowed_executor(seconds: int, trainer: str = DEFAULT_TRAINER) -> BorrowedExecutor:
    """An executor that trains in calls of so many seconds. Its `spaces` has to be imported before torch is.

    Raises:
        InputError: there is no `spaces` here.
    """
    try:
        spaces = importlib.import_module("spaces")
    except ImportError:
        allowed = "it needs the package spaces, which is in requirements-zerogpu.txt"
        raise InputError("RANKLAB_EXECUTOR", "zerogpu", allowed) from None
    return BorrowedExecutor(spaces.GPU(duration=seconds)(reports_of), seconds, trainer)
