"""A record of keys and values, told in a sentence or two.

Every plan of a record's kind is a reference, in a random order. The key of a row is the record, whatever the order of
its entries: no record of the evaluation rows is one of the training rows.
"""

from __future__ import annotations

from random import Random

from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._record_wordings import draw_record, record_text
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, Draft, StreamTask, TextStream


def draft(rng: Random) -> Draft:
    facts, wordings = draw_record(rng)
    plans = rng.sample(wordings, len(wordings))
    return repr(sorted(facts.items())), lambda: [(record_text(rng, facts), tuple(plan(facts) for plan in plans))]


STREAM = TextStream("data_to_text", ("text", "target"), draft, dtype=None)

TASK = StreamTask(
    TaskInfo(
        id="data_to_text",
        title="Data to text",
        description="Tell a record of an inn, a person or a trip in a sentence: every fact, nothing else, in good "
        "English.",
        kind="generation",
        modality="text",
        metrics=("bleu", "rouge_l"),
        labels=None,
        outputs=0,
        train_rows=8000,
        eval_rows=1000,
        max_train_rows=MAX_ROWS,
        max_eval_rows=MAX_EVAL_ROWS,
    ),
    STREAM,
)
