"""What the tests of own data share: small files, and the sentence that a file is refused with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peft_core.records import InputError
from peft_core.tasks import get_task


def shared_data() -> Path:
    """The folder of real rows beside the checkout, or where RANKLAB_SHARED says; skips where there is none."""
    folder = Path(os.environ.get("RANKLAB_SHARED", Path(__file__).parents[3] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"the real rows of {folder} are not here")
    return folder


def refusal(path: Path, **options: object) -> str:
    """The one sentence that a file is refused with."""
    with pytest.raises(InputError) as caught:
        task = get_task(str(path), options)
        task.check(options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


def table(folder: Path, rows: int = 40, name: str = "table.csv") -> Path:
    """A good table of two classes."""
    lines = [f"sentence number {row},{'yes' if row % 4 else 'no'}" for row in range(rows)]
    path = folder / name
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return path
