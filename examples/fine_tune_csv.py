"""Fine-tune on a table of your own, ask the result, and keep it.

    python examples/fine_tune_csv.py [TABLE [FOLDER]]

Without a table it writes one: sentences of the embedded task `acceptability`, with columns named otherwise.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import peft_core
from peft_core.records import Event
from peft_core.tasks import get_task


def example_table(path: Path) -> Path:
    """600 sentences with a verdict."""
    task = get_task("acceptability")
    rows = task.rows("train", 600, 0, {})
    assert rows.labels is not None and task.info.labels is not None
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["sentence", "verdict"])
        verdicts = (task.info.labels[label] for label in rows.labels)
        table.writerows(zip(rows.columns["text"], verdicts, strict=True))
    return path


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(arguments[0]) if arguments else example_table(Path(scratch) / "sentences.csv")
        columns = {} if arguments else {"text": "sentence", "label": "verdict"}  # guessed where they are left out
        model = peft_core.load("tiny-text", task=str(table), task_options=columns)
        tuned = peft_core.attach(model, "capaboost_lora:rank=8,d=2,sparsity=0.5")
        print(f"{tuned.trainable:,} of {model.parameters:,} parameters train")

        def told(record: Event) -> None:
            if record.event == "eval":
                print(f"step {record.step}: {record.scores}")

        peft_core.train(tuned, steps=60, batch_size=16, eval_every=20, on_record=told)
        print("held-out rows:", peft_core.evaluate(tuned))
        for text in ("These cows that annoy the students cry.", "These cows that annoys the students cry."):
            (found,) = peft_core.predict(tuned, [text])
            assert found.confidence is not None
            print(f"{text!r}: {found.answer} ({found.confidence[str(found.answer)]:.0%})")
        folder = Path(arguments[1]) if len(arguments) > 1 else Path(scratch) / "tuned"
        peft_core.export(tuned, folder)
        again = peft_core.load(folder)
        print(f"stored in {sum(file.stat().st_size for file in folder.iterdir()):,} bytes; loaded, it answers")
        print([found.answer for found in peft_core.predict(again, table)[:5]], "for the first rows of the table")


if __name__ == "__main__":
    main(sys.argv[1:])
