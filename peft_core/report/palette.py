"""One colour and one second cue (dash, marker) per method, the same on every chart.

The colours are the eight of Okabe and Ito (2008), which stay apart for colour-blind readers; yellow is left out, since
a thin yellow line on white cannot be read. A place in the label order decides, so a label keeps its look for the life
of a comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
DASHES = ("solid", "dash", "dashdot", "longdash", "dot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")


@dataclass(frozen=True)
class Look:
    """How one method is drawn."""

    colour: str
    dash: str
    marker: str


def look(position: int) -> Look:
    """The look of the label at this place. Colours and dashes have coprime lengths: 35 distinct pairs."""
    return Look(COLOURS[position % len(COLOURS)], DASHES[position % len(DASHES)], MARKERS[position % len(MARKERS)])


def translucent(colour: str, alpha: float) -> str:
    """`#rrggbb` as an rgba() for bands."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
