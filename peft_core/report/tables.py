"""The comparison as a table: one row per method, and the same rows as CSV, JSON, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from peft_core.records import RunRow, RunState, View
from peft_core.report.series import labels, points
from peft_core.report.statistics import paired, spread

Row = dict[str, Any]

RESULT_FIGURES = (
    "trainable",
    "trainable_percent",
    "head_parameters",
    "stored_bytes",
    "head_bytes",
    "adapter_flops_executed",
    "adapter_flops_nominal",
    "flops_vs_lora",
    "seconds",
    "step_ms_median",
    "peak_memory_bytes",
)
RANK_FIGURES = ("numerical_mean", "numerical_max", "effective_mean", "stable_mean", "bound")


def strict(value: Any) -> Any:
    """The same data without NaN and infinities, which strict JSON does not have."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): strict(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [strict(entry) for entry in value]
    return value


def score_of(run: RunRow, metric: str | None) -> float | None:
    """The selected score of a finished run."""
    return run.result.score.get(metric) if run.result and metric else None


def summary(view: View, reference: str | None = None) -> list[Row]:
    """`summary` of results.json: one entry per label; differences are paired by seed, to the first label if unsaid."""
    metric = view.comparison.metric
    by_label = {label: _scores(view, label, metric) for label in labels(view)}
    chosen = reference if reference in by_label else next(iter(by_label))
    return [
        {
            "label": label,
            **spread(list(scores.values())),
            "versus": paired(scores, by_label[chosen], chosen) if label != chosen else None,
        }
        for label, scores in by_label.items()
    ]


def _scores(view: View, label: str, metric: str | None) -> dict[int, float]:
    found = {run.seed: score_of(run, metric) for run in view.runs if run.label == label}
    return {seed: score for seed, score in found.items() if score is not None}


def rows(view: View, reference: str | None = None) -> list[Row]:
    """Rows of the page's table: the summary, the states, and the mean figures of the finished runs."""
    table = []
    for entry in summary(view, reference):
        runs = [run for run in view.runs if run.label == entry["label"]]
        table.append({**entry, **_states(runs), **_figures(runs)})
    return table


def latest_scores(view: View) -> dict[str, float | None]:
    """The mean over seeds of each label's last evaluation, finished or not. Needs a view with all events."""
    reported, metric, found = points(view.events), view.comparison.metric, {}
    for label in labels(view):
        runs = [reported[run.run] for run in view.runs if run.label == label and run.run in reported]
        last = [run.evaluations["scores"][-1].get(metric) for run in runs if run.evaluations["scores"]]
        found[label] = _mean(last)
    return found


def _states(runs: Sequence[RunRow]) -> Row:
    counts = {state: sum(run.state == state for run in runs) for state in RunState}
    errors = [f"seed {run.seed}: {run.error}" for run in runs if run.error]
    return {"states": {str(state): count for state, count in counts.items() if count}, "errors": errors}


def _figures(runs: Sequence[RunRow]) -> Row:
    results = [run.result for run in runs if run.result]
    figures: Row = {name: _mean([getattr(result, name) for result in results]) for name in RESULT_FIGURES}
    names = dict.fromkeys(name for result in results for name in result.score)
    figures["scores"] = {name: _mean([result.score.get(name) for result in results]) for name in names}
    ranks = [result.rank for result in results if result.rank]
    figures["rank"] = {name: _mean([rank.get(name) for rank in ranks]) for name in RANK_FIGURES} if ranks else None
    return figures


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    if not present:
        return None
    mean = statistics.fmean(present)
    return int(mean) if all(isinstance(value, int) for value in present) and mean.is_integer() else mean


# --- files ------------------------------------------------------------------------------------------------------


def flat(row: Row) -> Row:
    """A row with one value per column, for files."""
    versus, rank = row["versus"] or {}, row["rank"] or {}
    low, high = row["ci95"] or (None, None)
    difference_low, difference_high = versus.get("ci95") or (None, None)
    return {
        "label": row["label"],
        "n": row["n"],
        "mean": row["mean"],
        "std": row["std"],
        "ci95_low": low,
        "ci95_high": high,
        "versus": versus.get("reference"),
        "mean_difference": versus.get("mean_difference"),
        "difference_ci95_low": difference_low,
        "difference_ci95_high": difference_high,
        "difference_n": versus.get("n"),
        **{f"score_{name}": value for name, value in row["scores"].items()},
        **{f"rank_{name}": rank.get(name) for name in RANK_FIGURES},
        **{name: row[name] for name in RESULT_FIGURES},
        "states": " ".join(f"{state}:{count}" for state, count in row["states"].items()),
        "errors": " | ".join(row["errors"]),
    }


def to_csv(table: Sequence[Row]) -> str:
    """CSV in which no cell is a formula to a spreadsheet."""
    flattened = [flat(row) for row in table]
    stream = io.StringIO()
    names = list(dict.fromkeys(name for row in flattened for name in row)) or ["label"]
    writer = csv.DictWriter(stream, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    for row in flattened:
        writer.writerow({name: neutral(value) for name, value in row.items()})
    return stream.getvalue()


def neutral(value: Any) -> Any:
    """A text cell that a spreadsheet would run as a formula, with an apostrophe in front."""
    if isinstance(value, str) and value.lstrip(" \n").startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value


def dumped(document: Any) -> str:
    """A strict JSON text."""
    return json.dumps(strict(document), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def to_json(table: Sequence[Row]) -> str:
    return dumped(list(table))


def cells(row: Row) -> list[str]:
    versus, rank = row["versus"] or {}, row["rank"] or {}
    return [
        row["label"],
        str(row["n"]),
        plus_minus(row["mean"], row["std"]),
        signed_interval(versus.get("mean_difference"), versus.get("ci95")),
        number(rank.get("numerical_mean")),
        number(row["trainable"]),
        number(row["adapter_flops_nominal"]),
        number(row["stored_bytes"]),
        number(row["seconds"]),
    ]


HEADINGS = (
    "method",
    "n",
    "score, mean ± std",
    "paired difference [95 %]",
    "rank",
    "trainable",
    "FLOPs, nominal",
    "stored bytes",
    "seconds",
)


def to_markdown(table: Sequence[Row]) -> str:
    lines = [HEADINGS, ["---"] + ["---:"] * (len(HEADINGS) - 1), *(cells(row) for row in table)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def to_latex(table: Sequence[Row]) -> str:
    """A booktabs tabular."""
    body = [" & ".join(_latex(cell) for cell in line) + r" \\" for line in (HEADINGS, *(cells(row) for row in table))]
    inner = [r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
    return "\n".join([r"\begin{tabular}{l" + "r" * (len(HEADINGS) - 1) + "}", *inner, r"\end{tabular}", ""])


LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$"}
LATEX |= {character: "\\" + character for character in "&%$#_{}"}


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def number(value: float | None) -> str:
    """A figure for reading: grouped whole numbers, four significant digits otherwise."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.4g}"


def plus_minus(mean: float | None, std: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.3f}" if std is None else f"{mean:.3f} ± {std:.3f}"


def signed_interval(mean: float | None, interval: Sequence[float] | None) -> str:
    if mean is None:
        return "–"
    shown = f"{mean:+.3f}"
    return shown if interval is None else f"{shown} [{interval[0]:+.3f}, {interval[1]:+.3f}]"
