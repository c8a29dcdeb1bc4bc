"""Scores of resampled rows: each is the metric of exactly those rows, and the resamples are shared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from peft_core.metrics.resampling import Outcomes, counts, mean_over_rows, resampled_scores
from peft_core.metrics.scores import CLASS_METRICS, NUMBER_METRICS, outcomes, score
from peft_core.metrics.texts import ANSWER_METRICS, GENERATION_METRICS, text_outcomes, text_scores

SEED, SOME = 7, 25


def drawn_rows(rows: int) -> list[list[int]]:
    """The rows of every resample, a row that is drawn twice twice."""
    return [np.repeat(np.arange(rows), line.astype(int)).tolist() for line in next(counts(rows, SEED, 0, SOME))]


def numbers(rows: int, outputs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randn(rows, outputs, generator=generator).mul(2).round()
    return (labels + torch.randn(rows, outputs, generator=generator)).mul(2).round() / 2, labels


@pytest.mark.parametrize("name", CLASS_METRICS)
@pytest.mark.parametrize(("rows", "classes"), [(60, 2), (40, 4), (5, 3), (1, 2)])
def test_classes_are_scored_as_the_rows_themselves(name: str, rows: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    answers = torch.randn(rows, classes, generator=generator) + torch.nn.functional.one_hot(labels, classes)
    found = outcomes(name, answers, labels)
    assert found is not None
    expected = [score([name], answers[drawn], labels[drawn])[name] for drawn in drawn_rows(rows)]
    assert resampled_scores([found], SEED, SOME) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", NUMBER_METRICS)
@pytest.mark.parametrize(("rows", "targets"), [(50, 1), (30, 3), (3, 1)])
def test_numbers_are_scored_as_the_rows_themselves(name: str, rows: int, targets: int) -> None:
    answers, labels = numbers(rows, targets, rows)
    found = outcomes(name, answers, labels)
    assert found is not None
    expected = [score([name], answers[drawn], labels[drawn])[name] for drawn in drawn_rows(rows)]
    assert rows > 3 or name == "r2" or None in expected, "three rows: some resamples do not vary"
    for one, other in zip(resampled_scores([found], SEED, SOME), expected, strict=True):
        assert one == (None if other is None else pytest.approx(other, abs=1e-6))


@pytest.mark.parametrize("name", [*ANSWER_METRICS, *GENERATION_METRICS])
def test_texts_are_scored_as_the_rows_themselves(name: str) -> None:
    words = ["the", "old", "cat", "sat", "on", "a", "mat", "while", "two", "dogs", "ran", "over", "hills"]
    generator = np.random.default_rng(3)
    references = [
        [" ".join(generator.choice(words, 6)) for _ in range(1 + place % 2 * (name != "qa_f1"))] for place in range(20)
    ]
    answers = [
        row[0] if place % 3 == 0 else " ".join(generator.choice(words, 5)) for place, row in enumerate(references)
    ]
    found = text_outcomes(name, answers, references)
    assert found is not None
    expected = [
        text_scores([name], [answers[row] for row in drawn], [references[row] for row in drawn])[name]
        for drawn in drawn_rows(20)
    ]
    assert resampled_scores([found], SEED, SOME) == pytest.approx(expected, abs=1e-6)


def test_a_resample_draws_as_many_rows_as_there_are_and_is_the_same_for_equal_keys() -> None:
    drawn = np.concatenate(list(counts(30, SEED)))
    assert drawn.shape == (1000, 30) and set(drawn.sum(1)) == {30}
    assert (drawn == np.concatenate(list(counts(30, SEED)))).all()
    for other in ((30, SEED + 1, 0), (30, SEED, 1)):
        assert (drawn != np.concatenate(list(counts(*other)))).any()


def test_several_tasks_give_the_mean_of_their_scores() -> None:
    values = [np.arange(10.0), np.arange(10.0) ** 2]
    both = [Outcomes(10, mean_over_rows(side)) for side in values]
    by_hand = [
        np.mean([line_0 @ values[0], line_1 @ values[1]]) / 10
        for line_0, line_1 in zip(next(counts(10, SEED, 0)), next(counts(10, SEED, 1)), strict=True)
    ]
    assert resampled_scores(both, SEED) == pytest.approx(by_hand, abs=1e-6)


def test_what_has_no_score_has_no_outcomes() -> None:
    assert outcomes("accuracy", torch.tensor([[float("nan"), 0.0]]), torch.tensor([0])) is None
    assert text_outcomes("bleu", [], []) is None


def test_the_spread_is_that_of_the_mean() -> None:
    """Of a mean over n rows the bootstrap's deviation is that of the rows over sqrt(n)."""
    values = np.random.default_rng(0).normal(size=400)
    found = resampled_scores([Outcomes(400, mean_over_rows(values))], SEED)
    assert np.std(found) == pytest.approx(values.std() / 20, rel=0.1)
