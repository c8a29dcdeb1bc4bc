"""Training: a comparison's runs, checked, trained, saved, resumed."""

from peft_core.training.check import check
from peft_core.training.cohort import train_comparison
from peft_core.training.loop import Run, train

__all__ = ["Run", "check", "train", "train_comparison"]
