"""What the store and the supervisor refuse: a sentence for a person, and no defect."""

from __future__ import annotations


def is_refusal(error: Exception) -> bool:
    """Whether the error's text is that sentence."""
    from peft_core.runs import Refused

    return isinstance(error, Refused)
