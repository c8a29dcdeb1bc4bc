"""Batches made ahead are the batches that would have been made in time."""

from __future__ import annotations

import pytest
import torch

from peft_core.training.feed import Feed
from peft_core.training.loop import train
from peft_core.training.problems import Encoded
from tests.conftest import miniature
from tests.training.test_loop import DATA, IMAGES, curve, make_run

CPU = torch.device("cpu")


def equal(one, two) -> bool:
    return (
        one[0].keys() == two[0].keys()
        and torch.equal(one[1], two[1])
        and all(torch.equal(one[0][name], two[0][name]) for name in one[0])
    )


@pytest.mark.parametrize("rows", [DATA.train, IMAGES.train], ids=["text", "images"])
def test_what_was_prepared_is_what_is_taken(rows, monkeypatch):
    plain, feed, made = Feed(CPU), Feed(CPU, ahead=True), []
    batch = Encoded.batch
    monkeypatch.setattr(Encoded, "batch", lambda *given: made.append(given[1]) or batch(*given))
    feed.prepare(rows, [3, 1, 4])
    assert made == [[3, 1, 4]]
    assert equal(feed.take(rows, [3, 1, 4]), plain.take(rows, [3, 1, 4])) and len(made) == 2
    feed.prepare(rows, [3, 1, 4])
    assert equal(feed.take(rows, [5, 9]), plain.take(rows, [5, 9])), "rows that nobody prepared"
    plain.prepare(rows, [2])
    assert made[-1] == [5, 9], "on a CPU nothing is made ahead"


@pytest.mark.parametrize("training", [{}, {"accumulation": 3}])
@pytest.mark.parametrize("family", ["roberta", "vit"])
def test_a_run_with_batches_made_ahead_is_the_same_run(family, training, monkeypatch):
    expected = curve(train(make_run("lora:rank=3", miniature(family), **training)))
    run, hits = make_run("lora:rank=3", miniature(family), **training), []
    run.feed = Feed(CPU, ahead=True)
    made = Feed._made
    monkeypatch.setattr(Feed, "_made", lambda *given: hits.append(given[2]) or made(*given))
    assert curve(train(run)) == expected
    parts = run.training.accumulation
    assert len(hits) == 20 * parts, "every micro-batch is made once"
