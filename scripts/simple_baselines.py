"""What the embedded tasks yield without a neural network: words counted, sources copied, neighbours looked up."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from peft_core.metrics.scores import score
from peft_core.metrics.texts import text_scores
from peft_core.tasks import Rows, TaskInfo
from peft_core.tasks._lexicon import ANIMATE

Scores = dict[str, float | None]
STRENGTHS = (0.01, 0.1, 1.0, 10.0)
_NOUNS = "|".join({form for concept in ANIMATE for noun in concept for form in (noun.singular, noun.plural)})
_ENTITY = re.compile(rf"\b[Tt]he (?:\w+ )?(?:{_NOUNS})\b")


def simple_baselines(info: TaskInfo, train: Rows, evaluation: Rows) -> dict[str, Scores]:
    """Scores by the baseline's name."""
    if info.problem == "generation":
        return {"copied_source": copied(info, evaluation), "nearest_source": nearest(info, train, evaluation)}
    if info.problem == "span":
        return {"bag_of_words": bag_of_words_span(info, train, evaluation)}
    return {"bag_of_words": bag_of_words(info, train, evaluation)}


def counter() -> Any:
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(token_pattern=r"\S+", lowercase=True)


def bag_of_words(info: TaskInfo, train: Rows, evaluation: Rows) -> Scores:
    """The best of a few strengths of a linear model on word counts, chosen on the evaluation rows: a generous bound."""
    from scipy.sparse import hstack
    from sklearn.linear_model import LogisticRegression, Ridge

    sides = [name for name in ("text", "text2") if name in train.columns]
    words = counter()
    words.fit([text for name in sides for text in train.columns[name]])

    def features(rows: Rows) -> Any:
        counts = [words.transform(rows.columns[name]) for name in sides]
        if len(counts) == 2:
            counts += [counts[0].minimum(counts[1]), abs(counts[0] - counts[1])]
        return hstack(counts).tocsr()

    x, y = features(train), features(evaluation)
    assert train.labels is not None and evaluation.labels is not None
    tried = []
    for strength in STRENGTHS:
        if info.labels is None:
            outputs = torch.tensor(Ridge(alpha=1 / strength).fit(x, train.labels).predict(y)).reshape(-1, 1)
            labels = torch.tensor(np.asarray(evaluation.labels, dtype=np.float64)).reshape(-1, 1)
        else:
            model = LogisticRegression(C=strength, max_iter=2000).fit(x, train.labels)
            outputs = torch.tensor(model.predict_proba(y))
            labels = torch.tensor(evaluation.labels)
        tried.append(score(info.metrics, outputs, labels))
    return max(tried, key=lambda scores: scores[info.metrics[0]] or 0.0)


def bag_of_words_span(info: TaskInfo, train: Rows, evaluation: Rows) -> Scores:
    """Which entity of the story answers, by logistic regression: its place, and the words that its sentence and the
    question have in common, and those that only one of them has. The best of a few strengths, chosen on the evaluation
    rows. It is told what an entity is."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.linear_model import LogisticRegression

    words = counter()
    words.fit([*train.columns["question"], *train.columns["context"]])

    def candidates(rows: Rows) -> tuple[Any, np.ndarray, list[list[str]]]:
        sentences, questions, places, right, found = [], [], [], [], []
        columns = (rows.columns[name] for name in ("question", "context", "answers"))
        for question, context, answers in zip(*columns, strict=True):
            entities = list(_ENTITY.finditer(context))
            found.append([entity.group() for entity in entities])
            for place, entity in enumerate(entities):
                begin = context.rfind(".", 0, entity.start()) + 1
                sentences.append(context[begin : context.find(".", entity.start())])
                questions.append(question.rstrip("?"))
                places.append(np.eye(8)[min(place, 7)])
                right.append(entity.start() == answers[0][1])
        one, two = words.transform(sentences), words.transform(questions)
        return hstack([one.minimum(two), abs(one - two), csr_matrix(places)]).tocsr(), np.array(right), found

    x, labels, _ = candidates(train)
    y, _, entities = candidates(evaluation)
    references = [tuple(text for text, _ in answers) for answers in evaluation.columns["answers"]]
    tried = []
    for strength in STRENGTHS:
        chances = iter(LogisticRegression(C=strength, max_iter=2000).fit(x, labels).predict_proba(y)[:, 1])
        answers = [max((next(chances), name) for name in row)[1] for row in entities]
        tried.append(text_scores(info.metrics, answers, references))
    return max(tried, key=lambda scores: scores[info.metrics[0]] or 0.0)


def copied(info: TaskInfo, evaluation: Rows) -> Scores:
    """The source itself for an answer."""
    return text_scores(info.metrics, evaluation.columns["text"], evaluation.columns["target"])


def nearest(info: TaskInfo, train: Rows, evaluation: Rows) -> Scores:
    """The first target of the training source with the most similar words (cosine of tf-idf)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(token_pattern=r"\S+", lowercase=True)
    x = words.fit_transform(train.columns["text"])
    places = np.asarray((words.transform(evaluation.columns["text"]) @ x.T).argmax(1)).ravel()
    return text_scores(
        info.metrics, [train.columns["target"][place][0] for place in places], evaluation.columns["target"]
    )
