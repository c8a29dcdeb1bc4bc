"""Scores of written answers: cases worked out by hand, the libraries' own figures, and what is refused."""

from __future__ import annotations

import math

import pytest

from peft_core.metrics.texts import ANSWER_METRICS, GENERATION_METRICS, bleu_signature, normalized, text_scores
from peft_core.records import InputError


def one(name: str, prediction: str, *references: str) -> float | None:
    return text_scores([name], [prediction], [references])[name]


def test_answers_are_compared_without_case_articles_and_punctuation() -> None:
    assert normalized("  The Cat's  an-imal, a dog! ") == "cats animal dog"
    assert normalized("theory of an") == "theory of"


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("The old wolf", ("old wolf.",), 1.0, 1.0),
        ("old wolf", ("the wolf",), 0.0, 2 / 3),
        ("a wolf wolf", ("the wolf", "a wolf wolf bear"), 0.0, 0.8),
        ("wolf", ("bear", "Wolf"), 1.0, 1.0),
        ("wolf", ("bear",), 0.0, 0.0),
        ("", (), 1.0, 1.0),
        ("wolf", (), 0.0, 0.0),
        ("", ("wolf",), 0.0, 0.0),
        ("the", (), 1.0, 1.0),
        ("", ("the", "wolf"), 0.0, 0.0),
    ],
)
def test_spans_are_scored_as_squad_does(prediction: str, references: tuple, exact: float, f1: float) -> None:
    scores = text_scores(["exact_match", "qa_f1"], [prediction], [references])
    assert scores == {"exact_match": exact, "qa_f1": pytest.approx(f1)}


def test_bleu_by_hand() -> None:
    # 7 tokens with the full stop against 7: precisions 6/7, 4/6, 2/5, 1/4.
    found = one("bleu", "The cat sat on the rug.", "The cat lay on the rug.")
    precisions = (6 / 7, 4 / 6, 2 / 5, 1 / 4)
    assert found == pytest.approx(math.prod(precisions) ** 0.25)


def test_bleu_is_of_the_corpus_and_short_answers_pay() -> None:
    predictions, references = ["a b c d e f", "g h i j"], [["a b c d e f"], ["g h i j k l"]]
    assert text_scores(["bleu"], predictions, references)["bleu"] == pytest.approx(math.exp(1 - 12 / 10))


def test_rows_may_have_different_numbers_of_references() -> None:
    scores = text_scores(["bleu", "chrf", "rouge_l"], ["a b c d e", "v w x y z"], [["no", "a b c d e"], ["v w x y z"]])
    assert scores == {name: pytest.approx(1.0) for name in scores}


def test_the_signature_is_that_of_the_score() -> None:
    assert bleu_signature(["a"], [["a", "b"]]).startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert bleu_signature(["a", "b"], [["a", "b"], ["b"]]).startswith("nrefs:var|")


@pytest.mark.parametrize(
    ("name", "score"),
    [
        # 4 of 5 and of 6 words in common; 2 of 4 and of 5 pairs; "the ... ran home" in order.
        ("rouge1", 2 * 4 / (5 + 6)),
        ("rouge2", 2 * 2 / (4 + 5)),
        ("rouge_l", 2 * 4 / (5 + 6)),
    ],
)
def test_rouge_by_hand(name: str, score: float) -> None:
    assert one(name, "the dogs quickly ran home", "nothing", "the dog ran home at night") == pytest.approx(score)


def test_rouge_takes_the_stem_and_the_best_reference() -> None:
    assert one("rouge1", "dogs running", "cats", "dog runs") == pytest.approx(1.0)


@pytest.mark.parametrize("name", [*ANSWER_METRICS, *GENERATION_METRICS])
def test_every_score_runs_from_nothing_to_one(name: str) -> None:
    assert one(name, "seven small words are in this text", "seven small words are in this text") == pytest.approx(1.0)
    assert one(name, "qqq", "seven small words are in that text") == pytest.approx(0.0, abs=0.01)
    assert text_scores([name], [], []) == {name: None}


@pytest.mark.parametrize(
    ("name", "predictions", "references", "sentence"),
    [
        ("meteor", ["a"], [["a"]], "metric is 'meteor'; it must be one of exact_match, qa_f1, bleu"),
        ("bleu", ["a", "b"], [["a"]], "predictions is 2; there must be one for each of 1 rows"),
        ("rouge1", ["a", "b"], [["a"], []], "references is 'row 1'; every row must have a reference for rouge1"),
    ],
)
def test_bad_input_ends_in_one_sentence(name: str, predictions: list, references: list, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        text_scores([name], predictions, references)
    assert str(caught.value).startswith(sentence)


def test_perfect_answers_score_one_and_not_more() -> None:
    rows = [
        f"The {word} walks from Lutborg to Mummouth on Monday ." for word in ("guard", "farmer", "painter", "baker")
    ]
    assert text_scores(("bleu",), rows, [(row,) for row in rows])["bleu"] == 1.0
