"""Every method on every family: three steps, stored, loaded, merged.

One fresh process a family for all its methods: what one leaves behind cannot help or hurt another. A failure names the
method. Training and storing of the first families is in the full contract matrix (`test_contract`).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.methods import family_checks
from tests.miniatures import MINIATURES, OTHERS

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "transformers", family_checks.__name__])


def in_a_fresh_process(check: Callable[[str], None], family: str) -> None:
    with ProcessPoolExecutor(1, mp_context=SERVER) as pool:
        pool.submit(check, family).result()


@pytest.mark.parametrize("family", OTHERS)
def test_every_method_trains_and_is_stored(family):
    in_a_fresh_process(family_checks.trains_and_is_stored, family)


@pytest.mark.parametrize("family", MINIATURES)
def test_merged_weights_give_the_same_outputs(family):
    in_a_fresh_process(family_checks.merged_weights_give_the_same_outputs, family)
