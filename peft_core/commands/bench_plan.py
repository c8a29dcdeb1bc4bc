"""``bench --what plan``: a whole comparison on an embedded model, executed in every way, from its start to its end.

Workers that have imported torch wait, as they do behind the page; what others make has imported everything as well.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.progress import track

from peft_core.backbones import load_backbone
from peft_core.commands._output import messages
from peft_core.commands._trainer import Peer, require_peft
from peft_core.methods import method_of_part, resolve
from peft_core.records import ComparisonSpec, InputError, MethodSpec, Plan, RunState, TrainingConfig, View
from peft_core.runs import Limits, Supervisor
from peft_core.runs.executors import Worker
from peft_core.runs.job import DEFAULT_TRAINER, Job
from peft_core.runs.machine import usable_cores
from peft_core.runs.process import MOST_SPARES, ProcessExecutor
from peft_core.training.environment import environment

COLUMNS = ("label", "seconds_median", "ratio", "times_sooner", "score_mean", "peak_bytes")
REPEATS = 3
METHODS = 4
RATE = 0.003
PEER = "Hugging Face Trainer and PEFT, one after another"
WARM_SECONDS = 30.0
"""How long is waited for spare workers to have imported everything."""

logger = logging.getLogger(__name__)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every way of executing the same runs, in turns; the reference is one worker with all threads."""
    if options.against:
        require_peft()
    threads = options.threads or usable_cores()
    spec, configs = compared(options)
    reference = f"in turns, one worker, {threads} thread{'s' if threads > 1 else ''}"
    with _desk(threads) as desk:
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            reference: lambda: desk.executed(spec, Plan(threads=threads, chosen="given")),
            "as chosen": lambda: desk.executed(spec),
            "workers": lambda: desk.executed(spec.model_copy(update={"plan": "workers"})),
            "lockstep": lambda: desk.executed(spec.model_copy(update={"plan": "lockstep"})),
        }
        if options.against:
            peer = Peer(spec, configs())
            ways[PEER] = lambda: _by_peer(peer, threads)
        found = _in_turns(ways, options.repeats, desk.ready)
        one = desk.executed(spec.model_copy(update={"methods": spec.methods[:1], "seeds": (0,), "plan": "apart"}))
    return {
        "what": "seconds from the start of a comparison to the end of its last run; ratios are medians of pairs; "
        "evaluated before the first step and after the last; peak: resident memory of all workers together",
        "model": spec.model,
        "task": spec.task,
        "methods": [str(method) for method in spec.methods],
        "runs": len(spec.methods) * len(spec.seeds),
        "steps": options.steps,
        "rows_of_a_batch": options.rows,
        "repeats": options.repeats,
        "threads": threads,
        "reference": reference,
        "rows": [_row(label, cells, found[reference]) for label, cells in found.items()],
        "plans": {label: cells[-1]["plan"] for label, cells in found.items() if "plan" in cells[-1]},
        "memory": _memory(one, found["lockstep"][-1]),
        "environment": environment(torch.device("cpu")) | {"threads": threads},
    }


def compared(options: argparse.Namespace) -> tuple[ComparisonSpec, Callable[[], dict[str, Any]]]:
    """The comparison, of methods that PEFT has too, and what makes PEFT's configs of them, by label.

    Raises:
        InputError: a number of runs that is not so many methods times some seeds.
    """
    if options.runs < METHODS or options.runs % METHODS:
        raise InputError("runs", options.runs, f"it must be a multiple of {METHODS}, the number of methods")
    if options.steps < 1:
        raise InputError("steps", options.steps, "it must be a whole number, at least 1")
    rank, low = options.rank, method_of_part("yardstick").id
    texts = (
        f"{low}:rank={rank},sites=qv",
        f"{low}:rank={rank},sites=six",
        f"{low}:rank={2 * rank},sites=qv",
        "prefix:length=8,reparametrize=false",
    )
    methods = tuple(MethodSpec.parse(text) for text in texts)
    for method in methods:
        resolve(method)
    spec = ComparisonSpec(
        model=options.model or "tiny-text",
        methods=methods,
        seeds=tuple(range(options.runs // METHODS)),
        training=TrainingConfig(
            steps=options.steps,
            batch_size=options.rows,
            learning_rate=RATE,
            eval_every=options.steps,
            device="cpu",
        ),
    )

    def configs() -> dict[str, Any]:
        from peft import LoraConfig, PrefixTuningConfig

        backbone = load_backbone(spec.model, outputs=2, problem="classification")
        qv, six = (sorted({site.module for site in backbone.sites(which)}) for which in ("qv", "six"))
        sizes = ((rank, qv), (rank, six), (2 * rank, qv))
        made: list[Any] = [
            LoraConfig(r=size, lora_alpha=size, target_modules=targets, task_type="SEQ_CLS") for size, targets in sizes
        ]
        made.append(PrefixTuningConfig(num_virtual_tokens=8, task_type="SEQ_CLS"))
        return {str(method): config for method, config in zip(methods, made, strict=True)}

    return spec, configs


class _Fixed(ProcessExecutor):
    """Gives a worker a plan where it would choose one. plan: that plan; None: it chooses."""

    plan: Plan | None = None

    def start(self, job: Job) -> Worker:
        return super().start(job if self.plan is None else job.model_copy(update={"plan": self.plan}))


class _Desk:
    """Executes comparisons, and waits until workers are ready for the next one."""

    def __init__(self, supervisor: Supervisor, executor: _Fixed) -> None:
        self._supervisor, self._executor = supervisor, executor

    def ready(self) -> None:
        """Waits until all spare workers have imported everything and the processor is left alone."""
        until, quiet, used = time.monotonic() + WARM_SECONDS, 0, -1.0
        while time.monotonic() < until and quiet < 4:
            time.sleep(0.25)
            spent = [sum(psutil.Process(pid).cpu_times()[:2]) for pid in self._executor.processes()]
            quiet = quiet + 1 if len(spent) >= MOST_SPARES and sum(spent) - used < 0.02 else 0
            used = sum(spent)

    def executed(self, spec: ComparisonSpec, plan: Plan | None = None) -> dict[str, Any]:
        """Seconds, mean score, peak memory and plan of a comparison.

        Raises:
            RuntimeError: one of its runs did not finish.
        """
        self._executor.plan = plan
        started = time.perf_counter()
        comparison = self._supervisor.submit(spec)
        self._supervisor.wait(comparison)
        seconds = time.perf_counter() - started
        view = self._supervisor.view(comparison)
        failed = next((run for run in view.runs if run.state is not RunState.FINISHED), None)
        if failed is not None:
            raise RuntimeError(f"{failed.label} ended {failed.state}: {failed.error}")
        recorded = plan.model_dump(mode="json") if plan is not None else view.comparison.plan
        return {"seconds": seconds, "score": _score(view), "peak": _peak(view, recorded), "plan": recorded}


@contextmanager
def _desk(threads: int) -> Iterator[_Desk]:
    with tempfile.TemporaryDirectory() as folder:
        executor = _Fixed(Path(folder), DEFAULT_TRAINER, threads=threads)
        with Supervisor(Path(folder), executor=executor, limits=Limits(spare=float("inf"))) as supervisor:
            yield _Desk(supervisor, executor)


def _score(view: View) -> float:
    metric = view.comparison.metric or ""
    scores = [run.result.score[metric] or 0.0 for run in view.runs if run.result]
    return sum(scores) / len(scores)


def _peak(view: View, plan: dict[str, Any]) -> int:
    """Peaks of the workers, added up: they need not have been at the same moment."""
    shares = plan["shares"] or [[run.run for run in view.runs]]
    peaks = {run.run: run.result.peak_memory_bytes or 0 for run in view.runs if run.result}
    return sum(max(peaks[run] for run in share) for share in shares)


def _by_peer(peer: Peer, threads: int) -> dict[str, Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    started = time.perf_counter()
    score = peer.score()
    seconds = time.perf_counter() - started
    torch.set_num_threads(before)
    return {"seconds": seconds, "score": score}


def _in_turns(
    ways: dict[str, Callable[[], dict[str, Any]]], repeats: int, ready: Callable[[], None]
) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in ways}
    for _ in track(range(repeats), "measuring", console=messages):
        for label, way in ways.items():
            ready()
            found[label].append(way())
            logger.info("%s: %.1f s", label, found[label][-1]["seconds"])
    return found


def _row(label: str, cells: list[dict[str, Any]], reference: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = [(own["seconds"], other["seconds"]) for own, other in zip(cells, reference, strict=True)]
    return {
        "label": label,
        "seconds_median": statistics.median(own for own, _ in pairs),
        "ratio": statistics.median(own / other for own, other in pairs),
        "times_sooner": statistics.median(other / own for own, other in pairs),
        "score_mean": statistics.mean(cell["score"] for cell in cells),
        "peak_bytes": max((cell["peak"] for cell in cells if "peak" in cell), default=None),
        "seconds": [own for own, _ in pairs],
    }


def _memory(one: dict[str, Any], lockstep: dict[str, Any]) -> dict[str, Any]:
    """All runs in lockstep beside one run: peaks of the whole process, and what was estimated to be needed."""
    alone, folded = one["plan"]["memory_bytes"], lockstep["plan"]["memory_bytes"]
    return {
        "one_run_peak_bytes": one["peak"],
        "lockstep_peak_bytes": lockstep["peak"],
        "ratio": lockstep["peak"] / one["peak"],
        "backbone_bytes": folded["backbone"],
        "one_run_states_bytes": alone["states"],
        "one_run_activations_bytes": alone["activations"],
        "lockstep_states_bytes": folded["states"],
        "lockstep_activations_bytes": folded["activations"],
    }
