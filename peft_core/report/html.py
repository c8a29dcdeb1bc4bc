"""A comparison as one HTML file that opens without a network: charts, table, what ran, and where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from itertools import permutations
from typing import Any

from peft_core.records import ComparisonSpec, View
from peft_core.report import pareto, tables
from peft_core.report.figures import Figure, bar_figure, guides, line_figure, pareto_figure
from peft_core.report.series import curves, spectra

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; max-width: 80rem; margin: 0 auto;
       padding: 1.5rem 1rem 4rem; color: #1c2430; background: #fff; }
@media (prefers-color-scheme: dark) { body { color: #dde3ea; background: #14181f; } }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); gap: 1rem; }
.grid > div { border: 1px solid var(--line); border-radius: 6px; padding: .25rem; min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
pre { background: var(--soft); padding: .75rem; border-radius: 6px; overflow-x: auto; }
"""

SCRIPT = """
for (const holder of document.querySelectorAll("[data-figure]")) {
  const figure = JSON.parse(document.getElementById(holder.dataset.figure).textContent);
  figure.layout.font.color = getComputedStyle(document.body).color;
  Plotly.newPlot(holder, figure.data, figure.layout, { responsive: true, displaylogo: false });
}
const pareto = document.getElementById("pareto");
if (pareto) {
  const figures = JSON.parse(document.getElementById("pareto-figures").textContent);
  const [x, y] = ["x", "y"].map((axis) => document.getElementById(`pareto-${axis}`));
  const draw = () => {
    for (const option of y.options) option.disabled = option.value === x.value;
    if (x.value === y.value) y.value = [...y.options].find((option) => !option.disabled).value;
    const figure = figures[`${x.value} ${y.value}`];
    figure.layout.font.color = getComputedStyle(document.body).color;
    Plotly.react(pareto, figure.data, figure.layout, { responsive: true, displaylogo: false });
  };
  x.addEventListener("change", draw);
  y.addEventListener("change", draw);
  draw();
}
"""


def report_html(view: View, reference: str | None = None) -> str:
    """The whole report. Needs a view with all events.

    Args:
        reference: label that the table's differences are to; the first one if unsaid.
    """
    spec, plan, table = view.comparison.spec, view.comparison.plan, tables.rows(view, reference)
    title = escape(f"{spec.model} on {spec.task}")
    charts = "".join(_holder(number, figure) for number, figure in enumerate(_figures(view, table)))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style><script>{_plotly()}</script></head><body>
<h1>{title}</h1>
<p>{escape(_caption(view))}</p>
{_lock(spec)}<h2>Table</h2><div class="scroll">{_table(table)}</div>
<p>{escape(" ".join(tables.notes(table)))}</p>{_errors(view)}
<h2>Curves</h2><p>Line: mean over seeds. Band: lowest to highest seed.</p><div class="grid">{charts}</div>
{_pareto(table)}<h2>What ran</h2><pre>{_json(view.comparison.spec.model_dump(mode="json"))}</pre>
<h2>Every option of each method</h2><pre>{_json({run.label: run.config for run in view.runs})}</pre>
<h2>Plan and environment</h2>{_why(plan)}<pre>{_json({"plan": plan, **view.comparison.environment})}</pre>
<script>{SCRIPT}</script></body></html>
"""


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("</script", "<\\/script")


def _figures(view: View, table: Sequence[tables.Row]) -> list[Figure]:
    metric = view.comparison.metric or "score"
    baseline = view.comparison.baseline_score
    ranks, singular = curves(view, "effective"), spectra(view)
    spectrum = line_figure(singular, "Singular values, mean over layers", "place", "singular value", log=True)
    return [
        line_figure(
            curves(view, "score"), metric, "step", metric, {"baseline": baseline} if baseline is not None else None
        ),
        line_figure(curves(view, "loss", smoothing=0.8), "Training loss, smoothed", "step", "loss"),
        line_figure(
            ranks,
            "Effective rank, mean over layers",
            "step",
            "rank",
            guides([run.config or run.method.options for run in view.runs]) if any(line.x for line in ranks) else None,
        ),
        *([spectrum] if any(line.x for line in singular) else []),
        bar_figure(table, "trainable", "Trainable parameters, head left out"),
        bar_figure(table, "adapter_flops_nominal", "Adapter FLOPs per token, nominal"),
        bar_figure(table, "adapter_flops_executed", "Adapter FLOPs per token, executed"),
        bar_figure(table, "stored_bytes", "Stored bytes, head left out"),
        bar_figure(table, "step_ms_median", "Step time, median, ms"),
        bar_figure(table, "peak_memory_bytes", "Peak memory, bytes"),
    ]


def _pareto(table: Sequence[tables.Row]) -> str:
    """The chart of any two figures; nothing where no method has two of them."""
    document = pareto.fronts(table)
    measures = document["measures"]
    if len(measures) < 2:
        return ""
    keys = [measure["key"] for measure in measures]
    first = {"x": keys[1], "y": keys[0]}
    figures = {f"{x} {y}": pareto_figure(table, document, x, y) for x, y in permutations(keys, 2)}

    def chooser(axis: str) -> str:
        options = "".join(
            f'<option value="{escape(measure["key"])}"{" selected" if measure["key"] == first[axis] else ""}>'
            f"{escape(measure['title'])}</option>"
            for measure in measures
        )
        return f'<label>{axis} <select id="pareto-{axis}">{options}</select></label> '

    said = "Dotted line: methods that no other one beats on both figures. A method without one of them is left out."
    return (
        f"<h2>Pareto front</h2><p>{chooser('x')}{chooser('y')}</p><p>{said}</p>"
        f'<div class="grid"><div id="pareto"></div></div>'
        f'<script type="application/json" id="pareto-figures">{_embedded(figures)}</script>\n'
    )


def _lock(spec: ComparisonSpec) -> str:
    """What a budget lock changed."""
    if spec.lock is None:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in spec.lock.changes)
    return f"<h2>Budget lock</h2><p>{escape(spec.lock.title)}</p><ul>{items}</ul>\n"


def _holder(number: int, figure: Figure) -> str:
    name = f"figure-{number}"
    return f'<div data-figure="{name}"></div><script type="application/json" id="{name}">{_embedded(figure)}</script>'


def _embedded(value: Mapping[str, Any]) -> str:
    """JSON within a script element."""
    return json.dumps(tables.strict(value), allow_nan=False).replace("<", "\\u003c")


def _caption(view: View) -> str:
    comparison = view.comparison
    environment = comparison.environment
    device = ", ".join(str(environment[key]) for key in ("device_name", "device") if environment.get(key))
    parts = [
        f"Comparison {comparison.id}, {comparison.state}, started {comparison.created}",
        f"seeds {', '.join(map(str, comparison.spec.seeds))}",
        f"measured on {device}" if device else "",
    ]
    return "; ".join(part for part in parts if part) + "."


def _table(table: Sequence[tables.Row]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in tables.HEADINGS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in tables.cells(row)) + "</tr>" for row in table
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _errors(view: View) -> str:
    failed = [f"{run.label}, seed {run.seed}: {run.error}" for run in view.runs if run.error]
    return "".join(f"<p><strong>failed</strong> {escape(sentence)}</p>" for sentence in failed)


def _why(plan: Mapping[str, Any]) -> str:
    """The sentence on the plan; nothing for a comparison from before there was one."""
    return f"<p>{escape(str(plan['why']))}</p>" if plan.get("why") else ""


def _json(value: Mapping[str, Any]) -> str:
    return escape(json.dumps(tables.strict(value), indent=2, ensure_ascii=False))
