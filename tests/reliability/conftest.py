"""Two processes share these tests by files, the longest first; the contracts on a Ray cluster are of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

CONTRACTS = {"test_executors", "test_workers", "test_ray_curves", "test_ray_head"}
LONGEST = (
    "test_ray", "contracts", "test_page", "test_resume", "test_hostile", "test_real_training", "test_kills",
    "test_hub_down", "test_download", "test_memory_limits", "test_soak", "test_clock",
)  # fmt: skip
"""What is left goes to whoever is done first, so what takes long must not come last."""


def scope_of(file: str) -> str:
    return "contracts" if Path(file).stem in CONTRACTS else Path(file).stem


class ByScope(LoadFileScheduling):
    """Files as they are given out: the contracts together, so that their cluster is started once."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByScope:
    config.option.loadscopereorder = False  # by the number of tests, else: a file of one long test would come last
    return ByScope(config, log)


@pytest.hookimpl(trylast=True)  # behind the choice by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which files are given out."""
    if all(item.get_closest_marker("reliability") for item in items):
        scopes = {item: scope_of(item.path.name) for item in items}
        items.sort(key=lambda item: LONGEST.index(scopes[item]) if scopes[item] in LONGEST else len(LONGEST))
