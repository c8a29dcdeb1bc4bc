"""Two processes share these tests by files, the longest first: ``pytest -n 2 tests/reliability``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

HERE = Path(__file__).parent
LONGEST = (
    "test_page", "test_resume", "test_hostile", "test_real_training", "test_kills", "test_hub_down", "test_download",
    "test_memory_limits", "test_soak", "test_clock",
)  # fmt: skip
"""What is left goes to whoever is done first, so what takes long must not come last."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    config.option.loadscopereorder = False  # by the number of tests, else: a file of one long test would come last
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which files are given out."""
    if all(HERE in item.path.parents for item in items):
        items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
