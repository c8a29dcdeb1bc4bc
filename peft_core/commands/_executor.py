"""``--executor``: how the workers of a command run, and on which cluster."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from peft_core.records import InputError

if TYPE_CHECKING:
    from peft_core.runs.executors import Executor
    from peft_core.runs.ray_options import RayOptions

_RAY = {"ray_cpus": "RANKLAB_RAY_CPUS", "ray_gpus": "RANKLAB_RAY_GPUS", "ray_memory": "RANKLAB_RAY_MEMORY_GIB"}


def executor_of(options: argparse.Namespace, folder: Path, trainer: str) -> Executor:
    """The executor that the options ask for. folder: for what its workers write while they wait.

    Raises:
        InputError: options of a cluster without one; no Ray, or a cluster that must not be joined.
    """
    check_options(options)
    if options.executor == "thread":
        from peft_core.runs.executors import ThreadExecutor

        return ThreadExecutor(trainer)
    if options.executor == "ray":
        from peft_core.runs.ray import RayExecutor

        return RayExecutor(folder, trainer, ray_options(options))
    from peft_core.runs.process import ProcessExecutor

    return ProcessExecutor(folder, trainer)


def chosen(options: argparse.Namespace) -> str | Executor:
    """The executor that the options ask for, for a supervisor over the store.

    Raises:
        InputError: as `executor_of`.
    """
    from peft_core.runs import home
    from peft_core.runs.job import DEFAULT_TRAINER

    check_options(options)
    return executor_of(options, home(), DEFAULT_TRAINER) if options.executor == "ray" else str(options.executor)


def check_options(options: argparse.Namespace) -> None:
    """Raises `InputError` where options of a cluster are given to another executor."""
    for name in ("ray_address", *_RAY):
        if getattr(options, name) is not None and options.executor != "ray":
            raise InputError(name, getattr(options, name), "it needs --executor ray")


def ray_options(options: argparse.Namespace) -> RayOptions:
    """What the options and the environment say of the cluster."""
    from peft_core.runs.ray_options import RayOptions

    given = {_RAY[name]: getattr(options, name) for name in _RAY if getattr(options, name) is not None}
    return RayOptions.of(options.ray_address, os.environ | given)
