"""Ranks and singular values layer by layer, as a browser gets them."""

from __future__ import annotations

from typing import Any

from peft_core.report.layers import LIMIT, layer_ranks, layer_spectra


def layer(site: str, number: int, rank: int, spectrum: tuple[float, ...] | None = None) -> dict[str, Any]:
    place = {"site": site, "layer": number, "role": site[-1], "bound": rank}
    return place | {"numerical": rank, "effective": rank / 3, "stable": rank / 7, "spectrum": spectrum}


def event(run: str, step: int, *layers: dict[str, Any]) -> dict[str, Any]:
    return {"event": "rank", "run": run, "step": step, "layers": list(layers)}


def test_each_site_has_its_column_and_a_missing_one_is_none() -> None:
    events = [
        event("a", 0, layer("layer.0.q", 0, 0)),
        event("b", 0, layer("layer.0.q", 0, 5)),
        event("a", 10, layer("layer.0.q", 0, 4), layer("layer.1.v", 1, 2)),
        {"event": "step", "run": "a", "step": 11, "loss": 1.0},
    ]
    found = layer_ranks(events, {"a"})
    assert [site["site"] for site in found["sites"]] == ["layer.0.q", "layer.1.v"]
    assert found["sites"][0] == {"site": "layer.0.q", "layer": 0, "role": "q", "bound": 4}
    assert found["runs"].keys() == {"a"}
    assert found["runs"]["a"]["step"] == [0, 10]
    assert found["runs"]["a"]["numerical"] == [[0, None], [4, 2]]
    assert found["runs"]["a"]["effective"] == [[0.0, None], [1.333, 0.6667]]


def test_a_repeated_step_replaces_what_came_from_there_on() -> None:
    events = [event("a", step, layer("layer.0.q", 0, rank)) for step, rank in ((0, 0), (10, 3), (20, 4), (10, 7))]
    assert layer_ranks(events, {"a"})["runs"]["a"]["numerical"] == [[0], [7]]


def test_many_measurements_are_thinned_and_the_ends_kept() -> None:
    events = [event("a", step, layer("layer.0.q", 0, 4)) for step in range(3 * LIMIT)]
    steps = layer_ranks(events, {"a"})["runs"]["a"]["step"]
    assert len(steps) <= LIMIT and (steps[0], steps[-1]) == (0, 3 * LIMIT - 1)


def test_singular_values_of_a_site_or_the_mean_of_all() -> None:
    layers = layer("layer.0.q", 0, 2, (4.0, 1.0)), layer("layer.1.v", 1, 1, (2.0,))
    events = [event("a", 0, layer("layer.0.q", 0, 0)), event("a", 10, *layers), event("b", 10, layer("x.q", 0, 1))]
    assert layer_spectra(events) == {"a": {"step": [10], "values": [[3.0, 1.0]]}}
    assert layer_spectra(events, "layer.1.v") == {"a": {"step": [10], "values": [[2.0]]}}
    assert layer_spectra(events, "layer.9.k") == {}
