"""How a run's rows were read, and what its answers are measured in: what must be known to ask a trained model again."""

from __future__ import annotations

from pydantic import Field

from peft_core.records import Frozen


class Reading(Frozen):
    """Fields that are not known, as of an adapter made elsewhere, are empty.

    columns: name of the training table's column, by role: text, text2, question, context, image.
    mean, deviation: of the training targets, by output; the model's own answers are in deviations from the mean.
    """

    columns: dict[str, str] = Field(default_factory=dict)
    image_size: int | None = Field(None, ge=1, description="side of the square images, in pixels")
    max_length: int | None = Field(None, description="tokens a row was cut to; empty: the model's limit")
    max_new_tokens: int | None = Field(None, description="tokens of a written answer, its end included")
    empty_answers: bool = Field(False, description="whether some training rows had no answer in their context")
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
