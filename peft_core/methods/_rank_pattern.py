"""Ranks map by map as one text, so that a learned allocation can be an option of a method and of a stored comparison.

Written ``layer.*.q:4.0.2/layer.*.v:1.3.3``: for every group of maps, named with ``*`` for the layer's number, the ranks
of its layers 0, 1, 2 ...; a map that is left out has rank 0. ``@`` and a word may follow: where it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from peft_core.records import Backbone, InputError, Site

MAX_RANK = 8192
_GROUP = re.compile(r"(?P<name>[A-Za-z0-9_.-]*\*[A-Za-z0-9_.-]*):(?P<ranks>\d{1,5}(?:\.\d{1,5})*)")
_LAYER = re.compile(r"(?<![A-Za-z0-9_])\d+(?![A-Za-z0-9_])")
_WRITTEN = "ranks are written layer.*.q:4.0.2/layer.*.v:1.3.3, with a rank for every layer from 0 to 8192"


def is_pattern(text: str) -> bool:
    """Whether a text is meant as ranks, not as the name of a run or a file that holds some."""
    return "*" in text


def parse_pattern(text: str) -> dict[str, int]:
    """Rank by name of the map; maps of rank 0 are left out.

    Raises:
        InputError: it is not written so, a group is there twice, a rank is too large, or all are 0.
    """
    ranks: dict[str, int] = {}
    seen = set()
    for part in text.partition("@")[0].split("/"):
        match = _GROUP.fullmatch(part)
        if match is None or part.count("*") != 1 or match["name"] in seen:
            raise InputError("rank_pattern", text, _WRITTEN)
        seen.add(match["name"])
        for layer, rank in enumerate(map(int, match["ranks"].split("."))):
            if rank > MAX_RANK:
                raise InputError("rank_pattern", rank, f"a rank must be at most {MAX_RANK}")
            if rank:
                ranks[match["name"].replace("*", str(layer))] = rank
    if not ranks:
        raise InputError("rank_pattern", text, "some map must have a rank above 0")
    return ranks


def write_pattern(ranks: Mapping[str, int], source: str = "") -> str:
    """The text of ranks by name of the map. source: a word that says where they come from.

    Raises:
        InputError: a map whose name holds no layer number, or nothing of rank above 0.
    """
    groups: dict[str, dict[int, int]] = {}
    for name, rank in ranks.items():
        match = _LAYER.search(name)
        if match is None:
            raise InputError("rank_pattern", name, "the name of a map must hold the number of its layer")
        group = f"{name[: match.start()]}*{name[match.end() :]}"
        groups.setdefault(group, {})[int(match[0])] = rank
    if not any(ranks.values()):
        raise InputError("rank_pattern", source, "some map must have a rank above 0")
    written = [
        f"{group}:{'.'.join(str(layers.get(layer, 0)) for layer in range(max(layers) + 1))}"
        for group, layers in groups.items()
        if any(layers.values())
    ]
    return "/".join(written) + (f"@{source}" if source else "")


def sites_of_pattern(backbone: Backbone, text: str) -> list[tuple[Site, int]]:
    """The maps of a pattern with their ranks, in the order of the backbone.

    Raises:
        InputError: a name that the backbone has no map of, or a rank above the smaller side of its map.
    """
    ranks = parse_pattern(text)
    known = {site.name: site for site in (*backbone.sites("qkvo"), *backbone.sites("all-linear"))}
    parts = {site.name: site for site in backbone.sites("qv")}
    unknown = next((name for name in ranks if name not in known and name not in parts), None)
    if unknown is not None:
        raise InputError("rank_pattern", unknown, f"{backbone.id} has no map of this name")
    found = [(site, ranks[name]) for name, site in (parts | known).items() if name in ranks]
    for site, rank in found:
        if rank > min(site.in_features, site.out_features):
            largest = min(site.in_features, site.out_features)
            raise InputError("rank_pattern", rank, f"it must be at most {largest}, the smaller side of {site.name}")
    return found
