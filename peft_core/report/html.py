"""A comparison as one HTML file that opens without a network: charts, table, what ran, and where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from html import escape
from typing import Any

from peft_core.records import View
from peft_core.report import tables
from peft_core.report.figures import Figure, bar_figure, guides, line_figure
from peft_core.report.series import curves

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
"""


def report_html(view: View) -> str:
    """The whole report. Needs a view with all events."""
    spec = view.comparison.spec
    title = escape(f"{spec.model} on {spec.task}")
    charts = "".join(_holder(number, figure) for number, figure in enumerate(_figures(view)))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style><script>{_plotly()}</script></head><body>
<h1>{title}</h1>
<p>{escape(_caption(view))}</p>
<h2>Table</h2><div class="scroll">{_table(view)}</div>{_errors(view)}
<h2>Curves</h2><p>Line: mean over seeds. Band: lowest to highest seed.</p><div class="grid">{charts}</div>
<h2>What ran</h2><pre>{_json(view.comparison.spec.model_dump(mode="json"))}</pre>
<h2>Every option of each method</h2><pre>{_json({run.label: run.config for run in view.runs})}</pre>
<h2>Plan and environment</h2><pre>{_json({"plan": view.comparison.plan, **view.comparison.environment})}</pre>
<script>{SCRIPT}</script></body></html>
"""


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("</script", "<\\/script")


def _figures(view: View) -> list[Figure]:
    metric = view.comparison.metric or "score"
    baseline = view.comparison.baseline_score
    table = tables.rows(view)
    ranks = curves(view, "effective")
    return [
        line_figure(
            curves(view, "score"), metric, "step", metric, {"baseline": baseline} if baseline is not None else None
        ),
        line_figure(curves(view, "loss", smoothing=0.8), "Training loss, smoothed", "step", "loss"),
        line_figure(
            ranks,
            "Effective rank of the weight update, mean over layers",
            "step",
            "rank",
            guides([run.config or run.method.options for run in view.runs]) if any(line.x for line in ranks) else None,
        ),
        bar_figure(table, "trainable", "Trainable parameters, head left out"),
        bar_figure(table, "adapter_flops_nominal", "Adapter FLOPs per token, nominal"),
        bar_figure(table, "adapter_flops_executed", "Adapter FLOPs per token, executed"),
    ]


def _holder(number: int, figure: Figure) -> str:
    data = json.dumps(tables.strict(figure), allow_nan=False).replace("<", "\\u003c")
    name = f"figure-{number}"
    return f'<div data-figure="{name}"></div><script type="application/json" id="{name}">{data}</script>'


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


def _table(view: View) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in tables.HEADINGS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in tables.cells(row)) + "</tr>"
        for row in tables.rows(view)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _errors(view: View) -> str:
    failed = [f"{run.label}, seed {run.seed}: {run.error}" for run in view.runs if run.error]
    return "".join(f"<p><strong>failed</strong> {escape(sentence)}</p>" for sentence in failed)


def _json(value: Mapping[str, Any]) -> str:
    return escape(json.dumps(tables.strict(value), indent=2, ensure_ascii=False))
