"""Ranks and singular values layer by layer, packed for a browser: columns per run, only what a viewer has not seen."""

from __future__ import annotations

import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from peft_core.report.series import RANK_MEASURES, decimated, points

LIMIT = 240
"""Measurements of one run that are sent at once, spread over its steps."""


def layer_ranks(events: Iterable[Mapping[str, Any]], runs: Container[str]) -> dict[str, Any]:
    """The ranks of every site at every measurement.

    Args:
        events: of a comparison, in order.
        runs: whose events count.

    Returns:
        `sites`: site, layer, role and bound of each that was measured; `runs`: by run the columns `step` and, for each
        measure, a list with one value for each of `sites` (None where it was not measured).
    """
    sites: dict[str, dict[str, Any]] = {}
    found = points(event for event in events if event["event"] == "rank" and event["run"] in runs)
    for run in found.values():
        for layers in run.ranks["layers"]:
            for layer in layers:
                place = {key: layer[key] for key in ("site", "layer", "role", "bound")}
                sites.setdefault(layer["site"], place)["bound"] = layer["bound"]
    return {"sites": list(sites.values()), "runs": {name: _columns(run.ranks, sites) for name, run in found.items()}}


def _columns(ranks: Mapping[str, Sequence[Any]], sites: Iterable[str]) -> dict[str, list[Any]]:
    kept = decimated(range(len(ranks["step"])), LIMIT)
    by_site = [{layer["site"]: layer for layer in ranks["layers"][index]} for index in kept]
    values = {
        name: [[rounded(layers[site][name]) if site in layers else None for site in sites] for layers in by_site]
        for name in RANK_MEASURES
    }
    return {"step": [ranks["step"][index] for index in kept], **values}


def layer_spectra(events: Iterable[Mapping[str, Any]], site: str | None = None) -> dict[str, dict[str, list[Any]]]:
    """By run the columns `step` and `values`: singular values, largest first, at every step that recorded them.

    Args:
        events: of a comparison, in order.
        site: whose values; None: the mean over all sites, of which one with fewer values counts as far as these go.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    for name, run in points(event for event in events if event["event"] == "rank").items():
        columns: dict[str, list[Any]] = {"step": [], "values": []}
        for step, layers in zip(run.ranks["step"], run.ranks["layers"], strict=True):
            spectra = [layer["spectrum"] for layer in layers if layer.get("spectrum") and site in (None, layer["site"])]
            if spectra:
                columns["step"].append(step)
                columns["values"].append([rounded(value) for value in mean_spectrum(spectra)])
        if columns["step"]:
            found[name] = columns
    return found


def mean_spectrum(spectra: Sequence[Sequence[float]]) -> list[float]:
    """The mean of each place over the spectra that reach it."""
    most = max(len(values) for values in spectra)
    return [statistics.fmean(values[place] for values in spectra if place < len(values)) for place in range(most)]


def rounded(value: float) -> float:
    """Four significant digits, enough for a cell; a whole number stays whole."""
    return value if isinstance(value, int) else float(f"{value:.4g}")
