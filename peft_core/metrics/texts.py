"""Scores of written answers: SQuAD's for spans, sacrebleu's and rouge-score's for generated text. All from 0 to 1.

The libraries and SQuAD's papers print most of them from 0 to 100; here every score has the scale of an accuracy.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

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


def _best_answers(predictions: Sequence[str], references: References, alike: Callable[[str, str], float]) -> float:
    """Mean over rows of the best match. A row without an answer (SQuAD 2.0) wants an empty prediction."""
    rows = []
    for prediction, answers in zip(predictions, references, strict=True):
        wanted = [answer for answer in map(normalized, answers) if answer] or [""]
        rows.append(max(alike(normalized(prediction), answer) for answer in wanted))
    return fmean(rows)


def exact_match(predictions: Sequence[str], references: References) -> float:
    """Share of rows whose prediction is one of the answers, after SQuAD's normalization."""
    return _best_answers(predictions, references, lambda prediction, answer: float(prediction == answer))


def qa_f1(predictions: Sequence[str], references: References) -> float:
    """SQuAD's F1 over words, the best of a row's answers, a mean over rows."""
    return _best_answers(predictions, references, _words_in_common)


def bleu(predictions: Sequence[str], references: References) -> float:
    """Corpus BLEU (Papineni et al. 2002) as sacrebleu computes it by default: 13a tokens, case kept, exp smoothing."""
    return float(_bleu_score(predictions, references)[0])


def bleu_signature(predictions: Sequence[str], references: References) -> str:
    """What sacrebleu asks to be printed beside its BLEU (Post 2018), such as ``nrefs:1|case:mixed|...``."""
    return _bleu_score(predictions, references)[1]


def _bleu_score(predictions: Sequence[str], references: References) -> tuple[float, str]:
    from sacrebleu.metrics import BLEU

    # Only a warning about text that looks tokenized is off.
    metric = BLEU(force=True)
    found = metric.corpus_score(list(predictions), _streams(references))
    return min(found.score / 100, 1.0), str(metric.get_signature())


def chrf(predictions: Sequence[str], references: References) -> float:
    """chrF2 over characters (Popović 2015) as sacrebleu computes it by default."""
    from sacrebleu.metrics import CHRF

    return float(CHRF().corpus_score(list(predictions), _streams(references)).score) / 100


def _streams(references: References) -> list[list[Any]]:
    """First references, second references and so on, None where a row has no more."""
    most = max(len(row) for row in references)
    return [[row[place] if place < len(row) else None for row in references] for place in range(most)]


def rouge1(predictions: Sequence[str], references: References) -> float:
    """ROUGE-1 (Lin 2004)."""
    return _rouge("rouge1", predictions, references)


def rouge2(predictions: Sequence[str], references: References) -> float:
    """ROUGE-2 (Lin 2004)."""
    return _rouge("rouge2", predictions, references)


def rouge_l(predictions: Sequence[str], references: References) -> float:
    """ROUGE-L (Lin 2004) over whole texts."""
    return _rouge("rougeL", predictions, references)


def _rouge(kind: str, predictions: Sequence[str], references: References) -> float:
    """F1 of rouge-score, with the stemmer as in the papers; the best reference, a mean over rows."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], use_stemmer=True)
    return fmean(
        scorer.score_multi(row, prediction)[kind].fmeasure
        for prediction, row in zip(predictions, references, strict=True)
    )


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
