"""Nodes at work over time as SVG: one panel for every case of `simulate_cluster`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from peft_core.report.palette import look

WIDTH, HEIGHT, MARGIN = 420, 170, 40
"""Pixels of a panel, and around its axes."""


def busy_nodes(cases: Sequence[dict[str, Any]]) -> str:
    """Two panels a row: the fewest nodes at work in each part of the time."""
    drawn = [_panel(case, place) for place, case in enumerate(cases)]
    width, height = 2 * WIDTH, HEIGHT * ((len(cases) + 1) // 2)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
            '<rect width="100%" height="100%" fill="white"/>',
            *drawn,
            "</svg>",
            "",
        ]
    )


def _panel(case: dict[str, Any], place: int) -> str:
    right, top = case["busy"][-1][0], case["nodes"]

    def at(hours: float, nodes: float) -> str:
        across = MARGIN + hours / right * (WIDTH - MARGIN - 16)
        return f"{across:.1f} {HEIGHT - MARGIN + 8 - nodes / top * (HEIGHT - 2 * MARGIN):.1f}"

    line = "L".join(at(hours, nodes) for hours, nodes in case["busy"])
    (left, bottom), (_, ceiling) = at(0, 0).split(), at(0, top).split()
    end = at(right, 0).split()[0]
    return "\n".join(
        [
            f'<g transform="translate({place % 2 * WIDTH} {place // 2 * HEIGHT})">',
            f'<text x="{left}" y="16" font-weight="bold">{escape(case["case"])}</text>',
            f'<text x="{left}" y="30" fill="#555">nodes at work, {case["nodes_lost"]} lost; hours</text>',
            f'<path d="M{left} {ceiling}V{bottom}H{end}" fill="none" stroke="#888"/>',
            f'<text x="{float(left) - 5}" y="{float(ceiling) + 4}" text-anchor="end">{top}</text>',
            f'<text x="{float(left) - 5}" y="{float(bottom) + 4}" text-anchor="end">0</text>',
            f'<text x="{end}" y="{float(bottom) + 14}" text-anchor="end">{right:.3g}</text>',
            f'<path d="M{at(0, 0)}L{line}" fill="none" stroke="{look(0).colour}"/>',
            "</g>",
        ]
    )
