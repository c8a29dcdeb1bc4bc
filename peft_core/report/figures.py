"""Curves and tables to Plotly figures, as plain dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft_core.report.measured import measured_only
from peft_core.report.palette import look, translucent
from peft_core.report.series import Curve
from peft_core.report.tables import Row

Figure = dict[str, Any]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


@measured_only
def line_figure(
    lines: Sequence[Curve],
    title: str,
    x_title: str,
    y_title: str,
    guides: Mapping[str, float] | None = None,
    log: bool = False,
) -> Figure:
    """A line per method with the range over its seeds as a band, and dotted guide lines. log: of the y axis."""
    traces: list[dict[str, Any]] = []
    for place, line in enumerate(lines):
        if line.x:
            traces += _band(line, place)
            traces.append(_line(line, place))
    layout = _layout(title, x_title, y_title)
    if log:
        layout["yaxis"]["type"] = "log"
    layout["shapes"] = [_guide(height) for height in (guides or {}).values()]
    layout["annotations"] = [_guide_text(text, height) for text, height in (guides or {}).items()]
    if not traces:
        layout["annotations"].append({"text": "nothing was recorded", "showarrow": False, "xref": "paper", "x": 0.5})
    return {"data": traces, "layout": layout}


@measured_only
def bar_figure(table: Sequence[Row], key: str, title: str) -> Figure:
    """One bar per method."""
    shown = [(place, row) for place, row in enumerate(table) if row[key] is not None]
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": [escaped(row["label"]) for _, row in shown],
        "x": [row[key] for _, row in shown],
        "marker": {"color": [look(place).colour for place, _ in shown]},
    }
    layout = _layout(title, "", "")
    layout["yaxis"] |= {"autorange": "reversed", "automargin": True}
    return {"data": [trace], "layout": layout}


@measured_only
def pareto_figure(table: Sequence[Row], document: Mapping[str, Any], x: str, y: str) -> Figure:
    """Two figures of every method that has both, and a line through those that no other one beats.

    Args:
        document: what `pareto.fronts` found in the table.
        x, y: keys of its measures.
    """
    points, titles = document["points"], {measure["key"]: measure["title"] for measure in document["measures"]}
    known = [
        (place, row["label"])
        for place, row in enumerate(table)
        if points[row["label"]][x] is not None and points[row["label"]][y] is not None
    ]
    line = document["fronts"][f"{x} {y}"]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [points[label][x] for label in line],
            "y": [points[label][y] for label in line],
            "line": {"color": "gray", "dash": "dot", "width": 1},
            "hoverinfo": "skip",
        }
    ]
    traces += [_method_point(label, place, points[label][x], points[label][y], label in line) for place, label in known]
    layout = _layout("Pareto front", titles[x], titles[y])
    layout["hovermode"] = "closest"
    missing = [row["label"] for row in table if row["label"] not in {label for _, label in known}]
    if missing:
        layout["xaxis"]["title"]["text"] += f"<br><sub>without both figures: {escaped(', '.join(missing))}</sub>"
    return {"data": traces, "layout": layout}


def _method_point(label: str, place: int, x: float, y: float, on_front: bool) -> dict[str, Any]:
    style = look(place)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escaped(label),
        "x": [x],
        "y": [y],
        "hovertemplate": "%{x:.6g}, %{y:.4g}",
        "marker": {
            "color": style.colour if on_front else translucent(style.colour, 0.45),
            "symbol": style.marker,
            "size": 12,
            "line": {"color": style.colour, "width": 2},
        },
    }


def guides(configs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Guide lines for ranks: r, and d·r where modules are tied, from the configs that ran."""
    lines: dict[str, float] = {}
    for config in configs:
        rank, parallel = config.get("rank"), config.get("d")
        if isinstance(rank, int) and not isinstance(rank, bool):
            lines.setdefault(f"r = {rank}", rank)
            if isinstance(parallel, int) and parallel > 1:
                lines.setdefault(f"d·r = {parallel * rank}", parallel * rank)
    return lines


def escaped(text: str) -> str:
    """Text for Plotly, which reads a few HTML tags in labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _line(line: Curve, place: int) -> dict[str, Any]:
    style = look(place)
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(line.x) <= 40 else "lines",
        "name": escaped(line.label),
        "legendgroup": line.label,
        "x": line.x,
        "y": line.y,
        "customdata": line.n,
        "hovertemplate": "%{y:.4g} (n=%{customdata})",
        "line": {"color": style.colour, "dash": style.dash, "width": 2},
        "marker": {"symbol": style.marker, "size": 6},
    }


def _band(line: Curve, place: int) -> list[dict[str, Any]]:
    if max(line.n) < 2:
        return []
    common = {
        "type": "scatter",
        "mode": "lines",
        "x": line.x,
        "line": {"width": 0},
        "legendgroup": line.label,
        "showlegend": False,
        "hoverinfo": "skip",
    }
    fill = {"fill": "tonexty", "fillcolor": translucent(look(place).colour, 0.15)}
    return [{**common, "y": line.low}, {**common, "y": line.high, **fill}]


def _layout(title: str, x_title: str, y_title: str) -> dict[str, Any]:
    return {
        "title": {"text": title, "font": {"size": 15}, "x": 0, "xanchor": "left"},
        "font": {"family": FONT, "size": 12},
        "margin": {"l": 56, "r": 24, "t": 40, "b": 76},
        "height": 350,
        "hovermode": "x unified",
        "legend": {"orientation": "h", "y": -0.28, "yanchor": "top"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": {"title": {"text": x_title}, "gridcolor": "rgba(128,128,128,0.2)", "zeroline": False},
        "yaxis": {"title": {"text": y_title}, "gridcolor": "rgba(128,128,128,0.2)", "zeroline": False},
    }


def _guide(height: float) -> dict[str, Any]:
    line = {"dash": "dot", "width": 1, "color": "gray"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height, "line": line}


def _guide_text(text: str, height: float) -> dict[str, Any]:
    return {
        "text": text,
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "y": height,
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 11, "color": "gray"},
    }
