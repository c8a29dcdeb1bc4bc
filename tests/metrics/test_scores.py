"""Scores against scikit-learn and scipy, and what is said where a score is not defined."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch

from peft_core.metrics.scores import CLASS_METRICS, NUMBER_METRICS, baseline, score
from peft_core.records import InputError


@pytest.fixture
def classes() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (200,), generator=generator)
    outputs = torch.randn(200, 2, generator=generator)
    outputs[torch.arange(200), labels] += 0.8
    return outputs, labels


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("accuracy", sklearn.metrics.accuracy_score),
        ("f1", sklearn.metrics.f1_score),
        ("matthews_correlation", sklearn.metrics.matthews_corrcoef),
    ],
)
def test_class_scores_are_scikit_learns(name, reference, classes: tuple[torch.Tensor, torch.Tensor]) -> None:
    outputs, labels = classes
    assert score([name], outputs, labels)[name] == pytest.approx(reference(labels.numpy(), outputs.argmax(1).numpy()))


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("pearson", lambda x, y: scipy.stats.pearsonr(x, y)[0]),
        ("spearman", lambda x, y: scipy.stats.spearmanr(x, y)[0]),
        ("r2", sklearn.metrics.r2_score),
    ],
)
@pytest.mark.parametrize("shape", [(50,), (50, 1)])
def test_number_scores_are_the_libraries(name, reference, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randn(shape, generator=generator)
    outputs = (labels + 0.5 * torch.randn(shape, generator=generator)).reshape(50, 1)
    expected = reference(labels.flatten().double().numpy(), outputs.flatten().double().numpy())
    assert score([name], outputs, labels)[name] == pytest.approx(expected)


def test_several_targets_give_the_mean_of_their_scores() -> None:
    generator = torch.Generator().manual_seed(2)
    labels, outputs = torch.randn(40, 3, generator=generator), torch.randn(40, 3, generator=generator)
    found = score(["pearson", "r2"], outputs, labels)
    each = [scipy.stats.pearsonr(labels[:, i].double(), outputs[:, i].double())[0] for i in range(3)]
    assert found["pearson"] == pytest.approx(np.mean(each))
    assert found["r2"] == pytest.approx(sklearn.metrics.r2_score(labels.double(), outputs.double()))


def test_constant_predictions() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    always_zero = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    assert score(list(CLASS_METRICS), always_zero, labels) == {"accuracy": 0.5, "f1": 0.0, "matthews_correlation": 0.0}
    numbers = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = score(list(NUMBER_METRICS), torch.ones(4, 1), numbers)
    assert found["pearson"] is None and found["spearman"] is None
    assert found["r2"] == pytest.approx(-(1.5**2) * 4 / 5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_have_no_score(bad: float) -> None:
    outputs = torch.tensor([[bad, 0.0], [0.0, 1.0]])
    assert score(["accuracy", "f1"], outputs, torch.tensor([0, 1])) == {"accuracy": None, "f1": None}


def test_baselines_are_the_majority_class_and_the_mean() -> None:
    train, held_out = torch.tensor([2, 2, 1, 0]), torch.tensor([2, 1, 2, 2])
    assert baseline(["accuracy"], train, held_out) == {"accuracy": 0.75}
    assert baseline(["matthews_correlation"], train, held_out) == {"matthews_correlation": 0.0}
    numbers = torch.tensor([[0.0], [2.0]])
    found = baseline(["r2", "pearson", "spearman"], numbers, torch.tensor([[1.0], [3.0], [-1.0]]))
    assert found == {"r2": pytest.approx(0.0), "pearson": 0.0, "spearman": 0.0}


def test_unknown_metrics_are_named() -> None:
    with pytest.raises(InputError, match="bleu"):
        score(["bleu"], torch.zeros(2, 2), torch.zeros(2))
