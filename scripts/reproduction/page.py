"""The tables of `assets/benchmarks/reproduce.json`: what the cells say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft_core.report.statistics import paired, spread
from peft_core.report.tables import number, plus_minus, signed_interval
from scripts.reproduction.plan import CLAIM, GROUPS, MODELS, Group, Variant

Row = dict[str, Any]


def summary(cells: Sequence[Row]) -> dict[str, Any]:
    """For every group and task a row a method, and the claim: each CapaBoost against what it goes over."""
    tables = {
        group.name: [row for task in MODELS for row in _rows(group, [c for c in cells if c["task"] == task])]
        for group in GROUPS
    }
    return {"claim": _claim(cells), **{name: rows for name, rows in tables.items() if rows}}


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
                ends = line["ci95"] or [float("-inf"), float("inf")]
                verdict = "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "not told apart"
                rows.append({"task": task, "method": boosted, **line, "verdict": verdict})
    return rows


def page(document: Mapping[str, Any]) -> str:
    """The Markdown of a document."""
    machines = sorted({f"{place['device_name']}, {place['threads']} thread" for place in document["environments"]})
    torches = sorted({place["versions"]["torch"] for place in document["environments"]})
    lines = [
        f"# {document['title']}",
        "",
        "Written by `scripts/reproduce.py` from [reproduce.json](reproduce.json). " + document["what"] + ".",
        "",
        f"Measured on {'; '.join(machines)}; torch {', '.join(torches)}.",
        *_claim_lines(document["summary"]["claim"]),
    ]
    for group in GROUPS:
        rows = document["summary"].get(group.name, [])
        for task in [task for task in MODELS if any(row["task"] == task for row in rows)]:
            lines += _table(group, [row for row in rows if row["task"] == task])
    return "\n".join([*lines, "", "```bash", *document["commands"], "```", ""])


def _claim_lines(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = ["", "## CapaBoost against what it goes over", ""]
    lines += ["| task | method | against | n | difference [95 %] | |", f"|{'---|' * 6}"]
    for row in rows:
        difference = signed_interval(row["mean_difference"], row["ci95"])
        fields = [row["task"], f"`{row['method']}`", f"`{row['reference']}`", str(row["n"]), difference, row["verdict"]]
        lines.append(f"| {' | '.join(fields)} |")
    return lines


def _table(group: Group, rows: Sequence[Row]) -> list[str]:
    first = rows[0]
    lines = ["", f"## {group.title}: {first['task']} on {MODELS[first['task']]}, {first['metric']}", ""]
    heads = ("method", "n", "mean ± std", f"difference to {group.variants[0].label} [95 %]", "trained", "rank")
    lines += [f"| {' | '.join((*heads, 'effective rank', 'rate', 'seconds'))} |", f"|{'---|' * 9}"]
    for row in rows:
        versus = row["versus"] or {}
        fields = [f"`{row['label']}`" if row["label"] == row["method"] else row["label"], str(row["n"])]
        fields += [plus_minus(row["mean"], row["std"])]
        fields += [signed_interval(versus.get("mean_difference"), versus.get("ci95"))]
        fields += [number(row[name]) for name in ("trainable", "rank_numerical_mean", "rank_effective_mean")]
        fields += [f"{row['learning_rate']:g}", number(row["seconds"])]
        lines.append(f"| {' | '.join(fields)} |")
    return lines
