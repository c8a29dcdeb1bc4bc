"""Figures that a paper prints: a type of their own, so that nothing takes them for measured ones."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from peft_core.records.inputs import Frozen

PAPERS = {"capaboost": "CapaBoost", "propetl": "ProPETL", "increlora": "IncreLoRA", "rm_lora": "RM-LoRA"}


class QuotedFigure(Frozen):
    """One printed result.

    method: ours that it is of, with the options that the paper states; None for one that we do not have. model, task:
    ours where we have them, else as printed. score: in the paper's unit, percent or a correlation times 100, a rank as
    it is. about: what the table says of the parameters.
    """

    kind: Literal["quoted"] = "quoted"
    paper: Literal["capaboost", "propetl", "increlora", "rm_lora"]
    table: str = Field(min_length=1, max_length=10)
    printed: str = Field(min_length=1, description="the method as the paper calls it")
    method: str | None = None
    model: str
    task: str
    metric: str
    score: float
    std: float | None = None
    about: dict[str, float] = Field(default_factory=dict)

    @property
    def mark(self) -> str:
        """What stands beside it wherever it is shown."""
        return f"quoted: {PAPERS[self.paper]}, Table {self.table}"
