"""What the options of tasks mean: for forms and for the command line's help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft_core.tasks._columns import KINDS
from peft_core.tasks._lines import ENCODINGS
from peft_core.tasks._tables import DELIMITERS

HELP = {
    "kind": "kind of the task; empty: guessed from the columns",
    "text": "column with the text (the first of a pair, or the source); empty: guessed",
    "text2": "column with the second text of a pair",
    "label": "column with the class or the number to predict; empty: guessed",
    "question": "column with the question",
    "context": "column with the text that the answer stands in",
    "answers": "column with the answer, a list of answers, or SQuAD's object of texts and places",
    "target": "column with the text to write",
    "image": "column with the image of a Hub data set",
    "drop_bad": "leave out rows with empty cells, targets that are no numbers, or images that cannot be read",
    "eval_share": "share of the rows held out where there are no evaluation rows",
    "split_seed": "seed of the rows that are held out",
    "encoding": "how a text file is encoded; empty: by its first bytes, else UTF-8",
    "delimiter": "what stands between the fields of a CSV file; empty: seen from its header",
    "quotes": "whether quotes enclose fields; false: a quote is a character like others",
    "image_size": "side in pixels that images are brought to; empty: their median shorter side, at most 224",
    "config": "configuration of a Hub data set",
    "revision": "commit, branch or tag of a Hub data set; empty: what is cached, else its newest commit",
    "split": "split to train on; empty: train",
    "eval_split": "split to evaluate on; empty: validation or test, else a share of the training rows",
    "protocol": "which rows are trained on, selected on and reported, as the papers do it",
}
CHOICES: dict[str, tuple[str, ...]] = {"kind": KINDS, "encoding": ENCODINGS, "delimiter": tuple(DELIMITERS)}
_TYPES = {"image_size": "int", "drop_bad": "bool", "quotes": "bool", "eval_share": "float", "split_seed": "int"}


def described_options(task: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """name, type, default, choices and help of every option that has help; options: name to default."""
    from peft_core.tasks._benchmarks import BENCHMARKS, protocols_of

    choices = dict(CHOICES)
    if task in BENCHMARKS:
        choices["protocol"] = protocols_of(BENCHMARKS[task])
    return [
        {
            "name": name,
            "type": _TYPES.get(name, "str"),
            "default": default,
            "choices": list(choices[name]) if name in choices else None,
            "help": HELP[name],
        }
        for name, default in options.items()
        if name in HELP
    ]
