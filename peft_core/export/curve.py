"""A run's curve as a small picture: SVG, no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 44
INK, LINE, GRID = "#444444", "#2a6fbb", "#dddddd"


def curve_svg(points: Sequence[tuple[int, float]], metric: str, title: str, baseline: float | None = None) -> str:
    """Score over steps.

    Args:
        points: (step, score), in order.
        baseline: score of a model that ignores its input, drawn as a dashed line.
    """
    scores = [score for _, score in points] + ([baseline] if baseline is not None else [])
    low, high = _span(scores)
    last = max([step for step, _ in points] + [1])

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(score: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - score) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" fill="{INK}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(_short(title))}</text>',
    ]
    for score in round_values(low, high):
        parts.append(f'<path d="M{LEFT} {y(score):.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(score) + 4:.1f}" text-anchor="end">{score:.6g}</text>')
    for step in (value for value in round_values(0, last) if value == int(value)):
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{step:.0f}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(metric)} over steps</text>')
    if baseline is not None:
        level = y(baseline)
        parts.append(f'<path d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}" stroke="{INK}" stroke-dasharray="4 4"/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT}" y="{level - 4:.1f}" text-anchor="end">a model that ignores its input</text>'
        )
    if points:
        path = " ".join(f"{x(step):.1f},{y(score):.1f}" for step, score in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(step):.1f}" cy="{y(score):.1f}" r="2.5" fill="{LINE}"/>' for step, score in points]
    return "\n".join([*parts, "</svg>", ""])


def _span(scores: Sequence[float]) -> tuple[float, float]:
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def round_values(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, at most eight."""
    power = 10.0 ** math.floor(math.log10((high - low) / 8))
    width = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= 7)
    first, last = math.ceil(low / width), math.floor(high / width + 1e-9)
    return [round(number * width, 12) for number in range(first, last + 1)]


def _short(title: str) -> str:
    return title if len(title) <= 84 else title[:81] + "..."
