"""Small panels of points and a straight line as SVG, which a README shows without a browser having drawn it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from peft_core.report.palette import look

WIDTH, HEIGHT, MARGIN = 280, 200, 44
"""Pixels of a panel, and around its axes."""


def panels(axes: Sequence[dict[str, Any]]) -> str:
    """One panel for every axis of `bench_scaling`: medians with their quartiles, and the line through them."""
    drawn = [_panel(entry, place) for place, entry in enumerate(axes)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(axes)}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH * len(axes)} {HEIGHT}" font-family="sans-serif" font-size="11">',
            '<rect width="100%" height="100%" fill="white"/>',
            *drawn,
            "</svg>",
            "",
        ]
    )


def _panel(entry: dict[str, Any], place: int) -> str:
    x, y, line, colour = entry["x"], entry["step_ms_median"], entry["line"], look(place).colour
    top = 1.1 * max(high for _, high in entry["step_ms_quartiles"])
    right = 1.05 * max(x)

    def at(value: float, ms: float) -> tuple[float, float]:
        across = MARGIN + value / right * (WIDTH - MARGIN - 12)
        return round(across, 1), round(HEIGHT - MARGIN - ms / top * (HEIGHT - 2 * MARGIN), 1)

    (left, bottom), (end, ceiling) = at(0, 0), at(right, top)
    parts = [
        f'<g transform="translate({place * WIDTH} 0)">',
        f'<text x="{left}" y="18" font-weight="bold">{escape(entry["title"])}</text>',
        f'<text x="{left}" y="32" fill="#555">ms a step; R² = {line["r2"]:.4f}</text>',
        f'<path d="M{left} {ceiling}V{bottom}H{end}" fill="none" stroke="#888"/>',
    ]
    for value in (v for v, after in zip(x, [*x[1:], None], strict=True) if after is None or after - v > right / 15):
        parts.append(f'<text x="{at(value, 0)[0]}" y="{bottom + 14}" text-anchor="middle">{value}</text>')
    for ms in (0, top / 2.2, top / 1.1):
        parts.append(f'<text x="{left - 5}" y="{at(0, ms)[1] + 4}" text-anchor="end">{_short(ms)}</text>')
    (x0, y0), (x1, y1) = (at(value, line["intercept"] + line["slope"] * value) for value in (x[0], x[-1]))
    parts.append(f'<path d="M{x0} {y0}L{x1} {y1}" stroke="{colour}" stroke-dasharray="4 3"/>')
    for value, ms, (low, high) in zip(x, y, entry["step_ms_quartiles"], strict=True):
        (across, up), (_, lower), (_, upper) = at(value, ms), at(value, low), at(value, high)
        parts.append(f'<path d="M{across} {lower}V{upper}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{across}" cy="{up}" r="3.2" fill="{colour}"/>')
    return "\n".join([*parts, "</g>"])


def _short(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"
