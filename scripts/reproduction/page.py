"""The tables of `assets/benchmarks/reproduce.json`: what the cells say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft_core.report.reproduction import CLAIM as CLAIM_PART
from peft_core.report.reproduction import shown, side_of_zero
from peft_core.report.statistics import paired, spread
from peft_core.report.tables import number, plus_minus, signed_interval
from scripts.reproduction.plan import CLAIM, GROUPS, MODELS, Group, Variant

Row = dict[str, Any]

CLAIM_TITLE = "CapaBoost against what it goes over"


def plan() -> dict[str, dict[str, str]]:
    """What the summary's names stand for: titles of its parts, and each task's model."""
    return {
        "titles": {CLAIM_PART: CLAIM_TITLE, **{group.name: group.title for group in GROUPS}},
        "models": dict(MODELS),
    }


def summary(cells: Sequence[Row]) -> dict[str, Any]:
    """For every group and task a row a method, and the claim: each CapaBoost against what it goes over."""
    tables = {
        group.name: [row for task in MODELS for row in _rows(group, [c for c in cells if c["task"] == task])]
        for group in GROUPS
    }
    return {CLAIM_PART: _claim(cells), **{name: rows for name, rows in tables.items() if rows}}


def _scores(cells: Sequence[Row], method: str) -> dict[int, float]:
    """Score by seed; one that is not defined, such as a correlation of constant answers, is left out."""
    found = {cell["seed"]: cell["score"][cell["metric"]] for cell in cells if cell["method"] == method}
    return {seed: score for seed, score in found.items() if score is not None}


def _rows(group: Group, cells: Sequence[Row]) -> list[Row]:
    """The methods of a group on one task, in its order; none where only the reference is there."""
    there = [variant for variant in group.variants if any(cell["method"] == variant.key for cell in cells)]
    reference = group.variants[0]
    if not [variant for variant in there if variant is not reference]:
        return []
    return [_row(variant, reference, cells) for variant in there]


def _row(variant: Variant, reference: Variant, cells: Sequence[Row]) -> Row:
    of = [cell for cell in cells if cell["method"] == variant.key]
    scores = _scores(of, variant.key)
    line = spread(list(scores.values()))
    row = {"task": of[0]["task"], "label": variant.label, "method": variant.key, "metric": of[0]["metric"]}
    row |= {"n": line["n"], "runs": len(of), "mean": line["mean"], "std": line["std"]}
    same = variant is reference
    row["versus"] = None if same else dict(paired(scores, _scores(cells, reference.key), reference.label))
    row |= {name: _mean(of, name) for name in ("trainable", "stored_bytes", "flops_vs_lora", "seconds")}
    row |= {f"rank_{name}": _mean_rank(of, name) for name in ("numerical_mean", "effective_mean")}
    return row | {"learning_rate": of[0]["learning_rate"], "baseline_score": of[0]["baseline_score"]}


def _mean(cells: Sequence[Row], name: str) -> float | None:
    values = [cell[name] for cell in cells if cell[name] is not None]
    return sum(values) / len(values) if values else None


def _mean_rank(cells: Sequence[Row], name: str) -> float | None:
    values = [cell["rank"][name] for cell in cells if cell["rank"] is not None]
    return sum(values) / len(values) if values else None


def _claim(cells: Sequence[Row]) -> list[Row]:
    rows = []
    for boosted, plain in CLAIM:
        for task in MODELS:
            on = [cell for cell in cells if cell["task"] == task]
            both = [_scores(on, name) for name in (boosted, plain)]
            line = paired(both[0], both[1], plain)
            if line["n"]:
                rows.append({"task": task, "method": boosted, **line, "side": side_of_zero(line["ci95"])})
    return rows


def page(document: Mapping[str, Any]) -> str:
    """The Markdown of a document."""
    found = shown(document)
    lines = [
        f"# {found['title']}",
        "",
        "Written by `scripts/reproduce.py` from [reproduce.json](reproduce.json). " + found["what"] + ".",
        "",
        found["measured"],
        *_claim_lines(found["claim"]),
    ]
    for group in found["groups"]:
        for table in group["tables"]:
            lines += _table(group["title"], table)
    return "\n".join([*lines, "", "```bash", *found["commands"], "```", ""])


def _claim_lines(claim: Row) -> list[str]:
    if not claim["rows"]:
        return []
    lines = ["", f"## {claim['title']}", "", *(f"- {sentence}" for sentence in claim["sentences"]), ""]
    lines += ["| task | method | against | n | difference [95 %] | the interval is |", f"|{'---|' * 6}"]
    for row in claim["rows"]:
        difference = signed_interval(row["mean_difference"], row["ci95"])
        fields = [row["task"], f"`{row['method']}`", f"`{row['reference']}`", str(row["n"]), difference, row["side"]]
        lines.append(f"| {' | '.join(fields)} |")
    return lines


def _table(title: str, table: Row) -> list[str]:
    lines = ["", f"## {title}: {table['task']} on {table['model']}, {table['metric']}", ""]
    heads = ("method", "n", "mean ± std", f"difference to {table['reference']} [95 %]", "trained", "rank")
    lines += [f"| {' | '.join((*heads, 'effective rank', 'rate', 'seconds'))} |", f"|{'---|' * 9}"]
    for row in table["rows"]:
        versus = row["versus"] or {}
        fields = [f"`{row['label']}`" if row["label"] == row["method"] else row["label"], str(row["n"])]
        fields += [plus_minus(row["mean"], row["std"])]
        fields += [signed_interval(versus.get("mean_difference"), versus.get("ci95"))]
        fields += [number(row[name]) for name in ("trainable", "rank_numerical_mean", "rank_effective_mean")]
        fields += [f"{row['learning_rate']:g}", number(row["seconds"])]
        lines.append(f"| {' | '.join(fields)} |")
    return lines
