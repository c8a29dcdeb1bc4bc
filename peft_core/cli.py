"""The command line: what a command takes. What it does is in `commands`, imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, get_args

from pydantic.fields import FieldInfo

from peft_core.records import ComparisonSpec, InputError, TrainingConfig

DONE, RUN_FAILED, BAD_INPUT, CANCELLED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence and ends with status 2."""

    def error(self, message: str) -> NoReturn:
        text = message[:1].lower() + message[1:]
        print(f"{text.rstrip('.')}; see {self.prog} --help.", file=sys.stderr)
        raise SystemExit(BAD_INPUT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. 0 done, 1 a run failed, 2 bad arguments or input, 130 cancelled."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, stream=sys.stderr)
    command = importlib.import_module(f"peft_core.commands.{options.module}")
    try:
        return int(getattr(command, options.function)(options))
    except InputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except RuntimeError as error:
        if not importlib.import_module("peft_core.commands._refused").is_refusal(error):
            raise
        print(error, file=sys.stderr)  # the store cannot be used, the disk is full, what was asked for is at work
        return BAD_INPUT
    except KeyboardInterrupt:
        return CANCELLED
    except BrokenPipeError:
        sys.stderr.close()
        return DONE


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog="python -m peft_core", description="Compare parameter-efficient fine-tuning methods.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_text in (
        ("methods", "the methods and their options"),
        ("models", "the models that can be named"),
        ("tasks", "the tasks that can be named"),
    ):
        _command(commands, name, help_text, "lists", name)
    _add_data(commands)
    _add_budget(commands)
    _add_compare(commands)
    _add_sweep(commands)
    _add_theorem(commands)
    _add_quoted(commands)
    _add_store(commands)
    _add_predict(commands)
    _add_export(commands)
    _add_bench(commands)
    serve = _command(commands, "serve", "open the page, the same as python app.py", "serve", "serve")
    serve.add_argument("--host", default=None, help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, default=None, help="port to listen on (7860)")
    return parser


def _command(commands: argparse._SubParsersAction, name: str, help_text: str, module: str, function: str) -> _Parser:
    parser: _Parser = commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
    parser.set_defaults(module=module, function=function)
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    parser.add_argument("--verbose", action="store_true", help="more log lines on standard error")
    return parser


def _add_data(commands: argparse._SubParsersAction) -> None:
    preview = _command(commands, "preview", "what is in a table, a data set or a set of images", "data", "preview")
    preview.add_argument("--task", required=True, help="a file, a folder, hub:owner/name, or a task's id")
    preview.add_argument("--task-option", action="append", default=[], metavar="KEY=VALUE")
    preview.add_argument("--model", help="also count tokens as this model's tokenizer does")
    preview.add_argument("--max-length", help="tokens a row is cut to")
    presets = _command(commands, "presets", "the papers' settings for a benchmark", "data", "presets")
    presets.add_argument("--task", required=True, help="a benchmark's id, such as glue/cola")


def _add_budget(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "budget", "what methods cost on a model, without its weights", "lists", "budget")
    parser.add_argument("--model", required=True)
    parser.add_argument("--method", action="append", required=True, help="id or id:key=value,...; may be repeated")
    parser.add_argument("--flops-reference", help="the method whose FLOPs count as 1 (lora at the method's own rank)")
    parser.add_argument("--tasks", default="1", metavar="N", help="how many tasks are trained together (1)")
    parser.add_argument(
        "--fetch", action="store_true", help="ask the Hub for the config of a Hub id; without it no network is used"
    )
    _add_lock(parser)


def _add_lock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lock", metavar="KIND", help="parameters, rank or flops: make the methods equal in it by their size"
    )
    parser.add_argument("--lock-to", metavar="METHOD", help="the method they become equal to, as it is given")


def _add_compare(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "compare", "train methods side by side", "compare", "compare")
    parser.add_argument("spec", nargs="?", metavar="SPEC.yaml", help="a comparison in a file, instead of the options")
    parser.add_argument("--model", help="an embedded id, a folder, or a Hub id owner/name or owner/name@revision")
    parser.add_argument("--task")
    parser.add_argument("--task-option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--method", action="append", help="id or id:key=value,...; may be repeated")
    parser.add_argument(
        "--preset", action="append", help="a paper's settings by their name in `presets`; may be repeated"
    )
    parser.add_argument(
        "--from", dest="start", metavar="RUN", help="go on from a finished run: its method, model, task and seed"
    )
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", metavar="N", help="seeds 0 to N-1")
    seeds.add_argument("--seed-list", metavar="3,7", help="these seeds")
    for name in ("train_rows", "eval_rows", "data_seed", "plan"):
        _add_field(parser, name, ComparisonSpec.model_fields[name])
    for name, field in TrainingConfig.model_fields.items():
        _add_field(parser, name, field)
    _add_lock(parser)
    _add_executor(parser)
    parser.add_argument("--reference", metavar="METHOD", help="what differences are to, as it is given (the first one)")
    parser.add_argument("--out", metavar="DIR", help="folder for results.json and report.html")


def _add_field(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    """An option for a field of a record: its text is read when the record is made."""
    allowed = [str(value) for value in get_args(field.annotation) if isinstance(value, str)]
    described = [field.description or "", ", ".join(allowed)]
    switch: dict[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
    parser.add_argument(
        f"--{name.replace('_', '-')}", help="; ".join(part for part in described if part).replace("%", "%%"), **switch
    )


def _add_executor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--executor",
        choices=("process", "thread", "ray"),
        default="ray" if os.environ.get("RANKLAB_EXECUTOR") == "ray" else "process",
        help="how workers run (ray where RANKLAB_EXECUTOR is ray, else process)",
    )
    parser.add_argument(
        "--ray-address", metavar="A", help="host:port of a Ray cluster's head, or auto; none: one of this machine alone"
    )
    parser.add_argument("--ray-cpus", metavar="N", help="CPUs of a worker on the cluster (1)")
    parser.add_argument("--ray-gpus", metavar="N", help="its GPUs, or a part of one (1 where the device may be CUDA)")
    parser.add_argument("--ray-memory", metavar="GIB", help="memory that is kept for it (none)")


def _add_sweep(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands, "sweep", "try settings of methods, as many for each, on validation rows", "sweep", "sweep"
    )
    parser.add_argument("spec", metavar="SPEC.yaml", help="the grid: tasks, methods, learning rates, seeds")
    parser.add_argument("--out", metavar="FILE.json", help="trials and choices; what it holds is kept (SPEC.json)")
    _add_executor(parser)
    parser.add_argument(
        "--jobs", metavar="N", help="workers at once (small models: one a core, each with one thread; 1)"
    )
    parser.add_argument("--retry-failed", action="store_true", help="train trials again that failed before")


def _add_theorem(commands: argparse._SubParsersAction) -> None:
    text = "how often masked copies of one low-rank pair reach rank d r"
    parser = _command(commands, "theorem", text, "theorem", "theorem")
    parser.add_argument("--rank", required=True, help="inner dimension r")
    parser.add_argument("--d", required=True, help="parallel modules that share one pair")
    parser.add_argument("--sparsity", help="share of zeros in a mask (0.5); with N:M masks N/M decides")
    parser.add_argument("--shape", required=True, metavar="OxI", help="out x in of the layer, such as 768x768")
    parser.add_argument("--masks", help="random, same, or N:M such as 2:4 (random)")
    parser.add_argument("--draws", help="how often factors and masks are drawn (200)")
    parser.add_argument("--seed", help="draws factors and masks (0)")


def _add_quoted(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "quoted", "what the papers print, marked as quoted", "quoted", "quoted")
    parser.add_argument("--paper", help="capaboost, propetl, increlora or rm_lora")
    parser.add_argument("--table", help="number of the paper's table")
    parser.add_argument("--method", help="our id, or id with options as the list has it")


def _add_store(commands: argparse._SubParsersAction) -> None:
    runs = _command(commands, "runs", "what the store holds", "store", "runs")
    runs.add_argument("id", nargs="?", help="a comparison or a run; empty: all comparisons")
    resume = _command(commands, "resume", "go on with a comparison that was interrupted or stopped", "store", "resume")
    cancel = _command(commands, "cancel", "stop a comparison", "store", "cancel")
    delete = _command(commands, "delete", "remove a comparison with its history and checkpoints", "store", "delete")
    for parser in (resume, cancel, delete):
        parser.add_argument("id")
    _add_executor(resume)


def _add_predict(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "predict", "what a trained run answers", "predict", "predict")
    parser.add_argument("id", help="a run, or a comparison with one finished run")
    parser.add_argument("--text", metavar="A", help="a text")
    parser.add_argument("--text2", metavar="B", help="the second text of a pair")
    parser.add_argument("--question", metavar="Q", help="a question about --context")
    parser.add_argument("--context", metavar="C", help="the text that holds the answer")
    parser.add_argument("--image", metavar="FILE", action="append", help="an image; may be repeated")
    parser.add_argument("--file", metavar="TABLE", help="CSV, TSV, JSON lines (each also .gz) or Parquet; row by row")
    parser.add_argument("--task", metavar="ID", help="whose head answers, where several tasks were trained together")


def _add_export(commands: argparse._SubParsersAction) -> None:
    export = _command(commands, "export", "a finished run's adapter as a folder", "export", "export")
    export.add_argument("id", help="a run, or a comparison of one run")
    export.add_argument(
        "--format",
        required=True,
        choices=("native", "peft", "merged"),
        help="native: the smallest, for this project; peft: a LoRA folder of Hugging Face PEFT; merged: a whole model",
    )
    export.add_argument("--to", metavar="DIR", help="a folder that is empty or does not exist; a push can do without")
    export.add_argument("--task", metavar="ID", help="whose head goes along, where several tasks were trained together")
    export.add_argument("--model", help="its backbone, if not where the run had it")
    export.add_argument(
        "--push-to-hub", metavar="REPO", help="also owner/name of the Hub; asks for a token, or HF_TOKEN"
    )
    export.add_argument(
        "--token-stdin",
        action="store_true",
        help="the token is the first line of standard input; an empty line stands for this machine's login",
    )
    export.add_argument("--new-repository", action="store_true", help="push to no repository that is there already")
    taken = _command(commands, "import", "an adapter folder becomes a run", "export", "import_folder")
    taken.add_argument("folder", metavar="DIR", help="a LoRA folder of PEFT, or a native one")
    taken.add_argument("--model", help="its backbone, if not where the folder says")
    taken.add_argument("--task", help="score it on the evaluation rows of this task")
    taken.add_argument("--task-option", action="append", default=[], metavar="KEY=VALUE")
    taken.add_argument("--eval-rows", metavar="N", help="evaluation rows; empty: the task's default")
    inspect = _command(commands, "inspect", "rank report of an adapter made anywhere", "export", "inspect")
    inspect.add_argument("folder", metavar="DIR", help="a LoRA folder of PEFT, or a native one")
    inspect.add_argument("--compress", metavar="SHARE", help="also write an adapter with this share of the energy")
    inspect.add_argument("--to", metavar="DIR", help="where the smaller adapter goes: a folder that does not exist yet")
    inspect.add_argument("--model", help="a native folder's backbone, if not where the folder says")


def _add_bench(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "bench", "measure side by side, as ratios from one process", "bench", "bench")
    parser.add_argument(
        "--what",
        choices=("step", "memory", "rank", "plan", "inference", "page", "app"),
        default="step",
        help="step: time and memory of a training step; memory: what lives in a step, by the number of branches; "
        "rank: the rank of an update from its factors beside an SVD; plan: a whole comparison, executed in every way; "
        "inference: an adapter beside its backbone, and merged into it; page: the time bars of the page, in Chromium; "
        "app: the page's server while many watch and two comparisons train",
    )
    parser.add_argument("--against", choices=("peft",), help="a peer beside ours")
    parser.add_argument(
        "--model", default=None, help="embedded id; empty: RoBERTa-base's width, 4 layers, random weights"
    )
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rows", type=int, default=8, help="rows of a batch")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a row")
    parser.add_argument("--repeats", type=int, default=None, help="15; plan: 3")
    parser.add_argument("--steps", type=int, default=300, help="of each run; for plan (300)")
    parser.add_argument("--runs", type=int, default=8, help="4 methods times seeds; for plan (8)")
    parser.add_argument("--viewers", type=int, default=50, help="pages that are open at once; for app (50)")
    parser.add_argument("--duration", type=int, default=600, metavar="S", help="seconds watched; for app (600)")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", metavar="FILE", help="also write the JSON there")
