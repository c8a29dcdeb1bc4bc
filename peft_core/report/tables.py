"""The comparison as a table: one row per method, and the same rows as CSV, JSON, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from peft_core.records import RunRow, RunState, View
from peft_core.report.measured import measured_only
from peft_core.report.series import labels, points
from peft_core.report.statistics import BOOTSTRAP, ONE_SEED, Resampled, holm, paired, spread

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
    "stored_parameters",
    "inference_parameters",
    "bit_level_storage_percent",
    "run_flops",
    "run_adapter_flops_executed",
    "run_adapter_flops_nominal",
    "flops_executed_vs_lora",
    "examples_per_second",
    "data_wait_share",
    "peak_device_bytes",
    "peak_host_bytes",
    "energy_joules",
    "eval_loss",
    "train_loss",
    "train_penalty",
)
RANK_FIGURES = ("numerical_mean", "numerical_max", "effective_mean", "stable_mean", "bound")
RANKED = {
    "delta": "the weight update",
    "linear_map": "the linear map of an adapter or prefix",
    "bias": "the update of a bias",
}
"""What a rank is of, by `RunResult.rank_of`."""


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


@measured_only
def summary(view: View, reference: str | None = None) -> list[Row]:
    """`summary` of results.json: one entry per label; differences are paired by seed, to the first label if unsaid.

    All runs of the comparison count, whatever a page shows of them; Holm's correction is over all its methods.
    """
    metric = view.comparison.metric
    by_label = {label: _scores(view, label, metric) for label in labels(view)}
    rows_of = {label: _resampled(view, label) for label in by_label}
    chosen = reference if reference in by_label else next(iter(by_label))
    versus = {
        label: paired(scores, by_label[chosen], chosen, rows_of[label], rows_of[chosen])
        for label, scores in by_label.items()
        if label != chosen
    }
    corrected = holm([line["p_sign_flip"] for line in versus.values()])
    for line, value in zip(versus.values(), corrected, strict=True):
        line["p_holm"] = value
    return [
        {"label": label, **spread(list(scores.values())), "versus": versus.get(label)}
        for label, scores in by_label.items()
    ]


def _scores(view: View, label: str, metric: str | None) -> dict[int, float]:
    found = {run.seed: score_of(run, metric) for run in view.runs if run.label == label}
    return {seed: score for seed, score in found.items() if score is not None}


def _resampled(view: View, label: str) -> Resampled:
    found = {run.seed: run.result.resampled for run in view.runs if run.label == label and run.result}
    return {seed: scores for seed, scores in found.items() if scores is not None}


@measured_only
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
    figures["begun_from"] = next((result.begun_from for result in results if result.begun_from), None)
    figures["rank_of"] = next((result.rank_of for result in results if result.rank_of), None)
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
    rows_low, rows_high = versus.get("bootstrap95") or (None, None)
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
        "difference_std": versus.get("std"),
        "row_bootstrap95_low": rows_low,
        "row_bootstrap95_high": rows_high,
        "p_sign_flip": versus.get("p_sign_flip"),
        "p_sign_flip_holm": versus.get("p_holm"),
        "note": versus.get("note"),
        **{f"score_{name}": value for name, value in row["scores"].items()},
        **{f"rank_{name}": rank.get(name) for name in RANK_FIGURES},
        "rank_of": row["rank_of"],
        **{name: row[name] for name in RESULT_FIGURES},
        "states": " ".join(f"{state}:{count}" for state, count in row["states"].items()),
        "errors": " | ".join(row["errors"]),
    }


@measured_only
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


@measured_only
def to_json(table: Sequence[Row]) -> str:
    return dumped(list(table))


def cells(row: Row) -> list[str]:
    versus, rank = row["versus"] or {}, row["rank"] or {}
    return [
        row["label"],
        str(row["n"]),
        plus_minus(row["mean"], row["std"]),
        difference(versus),
        p_values(versus),
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
    "p (Holm)",
    "rank",
    "trainable",
    "FLOPs, nominal",
    "stored bytes",
    "seconds",
)


@measured_only
def to_markdown(table: Sequence[Row]) -> str:
    lines = [HEADINGS, ["---"] + ["---:"] * (len(HEADINGS) - 1), *(cells(row) for row in table)]
    body = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    return body + "\n" + " ".join(notes(table)).replace("|", "\\|") + "\n"


@measured_only
def to_latex(table: Sequence[Row]) -> str:
    """A booktabs tabular, and what its figures are as comments behind it."""
    body = [" & ".join(_latex(cell) for cell in line) + r" \\" for line in (HEADINGS, *(cells(row) for row in table))]
    inner = [r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
    said = ["% " + " ".join(sentence.split()) for sentence in notes(table)]
    return "\n".join([r"\begin{tabular}{l" + "r" * (len(HEADINGS) - 1) + "}", *inner, r"\end{tabular}", *said, ""])


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


def difference(versus: Mapping[str, Any]) -> str:
    """A paired difference with its interval; what is not the t interval over seeds says what it is."""
    shown = signed_interval(versus.get("mean_difference"), versus.get("ci95") or versus.get("bootstrap95"))
    if versus.get("n") != 1:
        return shown
    return shown + (" (one seed; bootstrap over rows)" if versus.get("bootstrap95") else " (one seed)")


def p_values(versus: Mapping[str, Any]) -> str:
    if versus.get("p_sign_flip") is None:
        return "–"
    return f"{versus['p_sign_flip']:.3g} ({versus['p_holm']:.3g})"


def notes(table: Sequence[Row]) -> list[str]:
    """What the statistics of this table are, in sentences."""
    lines = [row["versus"] for row in table if row["versus"]]
    said = ["Score: mean ± sample standard deviation over n seeds."]
    if any(line["ci95"] for line in lines):
        reference = next(line["reference"] for line in lines)
        said.append(f"Difference to {reference}: paired by seed and batch order, with its 95 % t interval over seeds.")
    if any(row["n"] == 1 for row in table) or any(line["n"] == 1 for line in lines):
        rows = any(line["bootstrap95"] for line in lines)
        said.append(f"{ONE_SEED.capitalize()}" + (f"; the brackets are a {BOOTSTRAP} (95 %)." if rows else "."))
    if any(line["p_sign_flip"] is not None for line in lines):
        said.append("p: two-sided sign-flip permutation test, and in parentheses with Holm's correction over methods.")
    return said + _begun(table) + _ranked(table)


def _begun(table: Sequence[Row]) -> list[str]:
    """Which rows had a head start."""
    begun = [f"{row['label']} began with what the run {row['begun_from']}" for row in table if row.get("begun_from")]
    return [f"{'; '.join(begun)}: the steps that learned it come on top."] if begun else []


def _ranked(table: Sequence[Row]) -> list[str]:
    """Which map the ranks are of; nothing where no row says it."""
    labels_of = {kind: [row["label"] for row in table if row["rank_of"] == kind] for kind in RANKED}
    parts = [f"of {RANKED[kind]} for {', '.join(found)}" for kind, found in labels_of.items() if found]
    return [f"Rank: numerical, a mean over layers and seeds, {'; '.join(parts)}."] if parts else []
