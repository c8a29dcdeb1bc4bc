"""Scores of written answers: SQuAD's for spans, sacrebleu's and rouge-score's for generated text. All from 0 to 1.

The libraries and SQuAD's papers print most of them from 0 to 100; here every score has the scale of an accuracy.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from statistics import fmean
from typing import Any

import numpy as np

from peft_core.metrics.resampling import Outcomes, mean_over_rows
from peft_core.records import InputError

References = Sequence[Sequence[str]]
TextMetric = Callable[[Sequence[str], References], float]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(answer: str) -> str:
    """SQuAD's comparison form (Rajpurkar et al. 2016): lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def _words_in_common(prediction: str, reference: str) -> float:
    """F1 over the words of two normalized answers; where one of them is empty, whether both are."""
    predicted, wanted = prediction.split(), reference.split()
    if not predicted or not wanted:
        return float(predicted == wanted)
    common = (Counter(predicted) & Counter(wanted)).total()
    return 2 * common / (len(predicted) + len(wanted))


def _best_answers(
    predictions: Sequence[str], references: References, alike: Callable[[str, str], float]
) -> list[float]:
    """Each row's best match. A row without an answer (SQuAD 2.0) wants an empty prediction."""
    rows = []
    for prediction, answers in zip(predictions, references, strict=True):
        wanted = [answer for answer in map(normalized, answers) if answer] or [""]
        rows.append(max(alike(normalized(prediction), answer) for answer in wanted))
    return rows


def exact_match(predictions: Sequence[str], references: References) -> float:
    """Share of rows whose prediction is one of the answers, after SQuAD's normalization."""
    return fmean(_exact_rows(predictions, references))


def _exact_rows(predictions: Sequence[str], references: References) -> list[float]:
    return _best_answers(predictions, references, lambda prediction, answer: float(prediction == answer))


def qa_f1(predictions: Sequence[str], references: References) -> float:
    """SQuAD's F1 over words, the best of a row's answers, a mean over rows."""
    return fmean(_best_answers(predictions, references, _words_in_common))


def bleu(predictions: Sequence[str], references: References) -> float:
    """Corpus BLEU (Papineni et al. 2002) as sacrebleu computes it by default: 13a tokens, case kept, exp smoothing."""
    return float(_bleu_score(predictions, references)[0])


def bleu_signature(predictions: Sequence[str], references: References) -> str:
    """What sacrebleu asks to be printed beside its BLEU (Post 2018), such as ``nrefs:1|case:mixed|...``."""
    return _bleu_score(predictions, references)[1]


def _bleu_score(predictions: Sequence[str], references: References) -> tuple[float, str]:
    metric = _bleu()
    found = metric.corpus_score(list(predictions), _streams(references))
    return min(found.score / 100, 1.0), str(metric.get_signature())


def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    # Only a warning about text that looks tokenized is off.
    return BLEU(force=True)


def chrf(predictions: Sequence[str], references: References) -> float:
    """chrF2 over characters (Popović 2015) as sacrebleu computes it by default."""
    return float(_chrf().corpus_score(list(predictions), _streams(references)).score) / 100


def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def _streams(references: References) -> list[list[Any]]:
    """First references, second references and so on, None where a row has no more."""
    most = max(len(row) for row in references)
    return [[row[place] if place < len(row) else None for row in references] for place in range(most)]


def rouge1(predictions: Sequence[str], references: References) -> float:
    """ROUGE-1 (Lin 2004)."""
    return fmean(_rouge("rouge1", predictions, references))


def rouge2(predictions: Sequence[str], references: References) -> float:
    """ROUGE-2 (Lin 2004)."""
    return fmean(_rouge("rouge2", predictions, references))


def rouge_l(predictions: Sequence[str], references: References) -> float:
    """ROUGE-L (Lin 2004) over whole texts."""
    return fmean(_rouge("rougeL", predictions, references))


def _rouge(kind: str, predictions: Sequence[str], references: References) -> list[float]:
    """Each row's F1 of rouge-score, with the stemmer as in the papers; the best reference."""
    return [_rouge_of(kind, text, tuple(row)) for text, row in zip(predictions, references, strict=True)]


@lru_cache(maxsize=20_000)
def _rouge_of(kind: str, prediction: str, references: tuple[str, ...]) -> float:
    """Kept for a while: milliseconds a row, and asked for again when rows are resampled."""
    return float(_rouge_scorer(kind).score_multi(references, prediction)[kind].fmeasure)


@cache
def _rouge_scorer(kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], use_stemmer=True)


ANSWER_METRICS: dict[str, TextMetric] = {"exact_match": exact_match, "qa_f1": qa_f1}
"""A row may have no reference: then no answer is the right one."""
GENERATION_METRICS: dict[str, TextMetric] = {
    "bleu": bleu,
    "chrf": chrf,
    "rouge1": rouge1,
    "rouge2": rouge2,
    "rouge_l": rouge_l,
}
"""Every row has at least one reference."""
CORPUS_METRICS: dict[str, Callable[[], Any]] = {"bleu": _bleu, "chrf": _chrf}
"""Scores of the corpus that are no mean over rows: sacrebleu's."""
ROW_METRICS: dict[str, Callable[[Sequence[str], References], list[float]]] = {
    "exact_match": _exact_rows,
    "qa_f1": partial(_best_answers, alike=_words_in_common),
    "rouge1": partial(_rouge, "rouge1"),
    "rouge2": partial(_rouge, "rouge2"),
    "rouge_l": partial(_rouge, "rougeL"),
}
"""What the other scores are a mean of."""


def text_scores(names: Sequence[str], predictions: Sequence[str], references: References) -> dict[str, float | None]:
    """Scores by metric name, from 0 to 1; None where there are no rows.

    Args:
        names: keys of `ANSWER_METRICS` or `GENERATION_METRICS`.
        predictions: one text a row.
        references: the texts that are right, for every row.

    Raises:
        InputError: an unknown metric, unequal numbers of rows, a row without a reference where one is needed.
    """
    if len(predictions) != len(references):
        raise InputError("predictions", len(predictions), f"there must be one for each of {len(references)} rows")
    return {name: _metric(name, references)(predictions, references) if references else None for name in names}


def _metric(name: str, references: References) -> TextMetric:
    if name in ANSWER_METRICS:
        return ANSWER_METRICS[name]
    if name not in GENERATION_METRICS:
        raise InputError("metric", name, f"it must be one of {', '.join((*ANSWER_METRICS, *GENERATION_METRICS))}")
    if not all(references):
        bare = next(place for place, row in enumerate(references) if not row)
        raise InputError("references", f"row {bare}", f"every row must have a reference for {name}")
    return GENERATION_METRICS[name]


def text_outcomes(name: str, predictions: Sequence[str], references: References) -> Outcomes | None:
    """What `name` needs to be computed again on resampled rows; None where there are no rows.

    Args:
        name, predictions, references: as in `text_scores`.
    """

    @cache
    def row_counts() -> np.ndarray:
        if name in ROW_METRICS:
            return np.array(ROW_METRICS[name](predictions, references))
        return np.array(
            CORPUS_METRICS[name]()._extract_corpus_statistics(list(predictions), _streams(references)), float
        )

    def rescore(drawn: np.ndarray) -> np.ndarray:
        if name in ROW_METRICS:
            return mean_over_rows(row_counts())(drawn)
        return _corpus_scores(CORPUS_METRICS[name](), drawn @ row_counts())

    return Outcomes(len(predictions), rescore) if predictions else None


def _corpus_scores(metric: Any, sums: np.ndarray) -> np.ndarray:
    """sacrebleu's score from its own counts, summed over rows as its significance tests sum them: one a line."""
    return np.array([min(metric._compute_score_from_stats(list(line)).score / 100, 1.0) for line in sums])
