"""How much a public page takes: one frozen model, a field a limit; `ui.settings` reads it."""

from __future__ import annotations

from pydantic import Field

from peft_core.records import ComparisonSpec, Frozen
from ui.form import FieldError, FormError

LARGEST = 10**9
NEXT = "the most on this public page; run it on a machine of your own for more"


class PublicLimits(Frozen):
    """Limits of a public page. Of rates the first number is for one visitor; `address` and `total` multiply it."""

    steps: int = Field(1000, ge=1, le=LARGEST, description="training steps of a run")
    epochs: float = Field(10.0, gt=0, le=LARGEST, description="passes over the training rows")
    train_rows: int = Field(20_000, ge=1, le=LARGEST, description="training rows that may be asked for")
    eval_rows: int = Field(5_000, ge=1, le=LARGEST, description="evaluation rows that may be asked for")
    runs: int = Field(24, ge=1, le=LARGEST, description="methods times seeds of a comparison")
    batch_size: int = Field(128, ge=1, le=LARGEST, description="rows of a training step")
    max_length: int = Field(512, ge=2, le=LARGEST, description="tokens of a row")
    minutes: float = Field(30.0, gt=0, le=LARGEST, description="wall-clock minutes that a comparison may train")
    model_gb: float = Field(
        1.0, gt=0, le=LARGEST, description="gigabytes of a Hub model's weights (RANKLAB_MAX_MODEL_GB wins)"
    )
    queue: int = Field(16, ge=0, le=LARGEST, description="comparisons that wait, of all visitors")
    visitor_comparisons: int = Field(2, ge=1, le=LARGEST, description="queued and running comparisons of a visitor")
    address_comparisons: int = Field(6, ge=1, le=LARGEST, description="queued and running comparisons of an address")
    kept: int = Field(500, ge=1, le=LARGEST, description="ended comparisons that are kept; older ones are deleted")
    upload_mib: float = Field(20.0, gt=0, le=LARGEST, description="MiB of an uploaded file (RANKLAB_UPLOAD_MIB wins)")
    visitor_uploads_mib: float = Field(50.0, gt=0, le=LARGEST, description="MiB of a visitor's uploads together")
    address_uploads_mib: float = Field(200.0, gt=0, le=LARGEST, description="MiB of an address's uploads together")
    uploads_mib: float = Field(2048.0, gt=0, le=LARGEST, description="MiB of all uploads (RANKLAB_UPLOADS_MIB wins)")
    upload_hours: float = Field(
        24.0, gt=0, le=LARGEST, description="hours after its last use that an uploaded file is kept"
    )
    visitor_jobs: int = Field(1, ge=1, le=LARGEST, description="previews, exports and pushes of a visitor at a time")
    address_jobs: int = Field(4, ge=1, le=LARGEST, description="previews, exports and pushes of an address at a time")
    reads_per_second: float = Field(15.0, gt=0, le=LARGEST, description="requests for data or files of a visitor")
    acts_per_second: float = Field(
        6.0, gt=0, le=LARGEST, description="small commands of a visitor: sliders, budgets, notes"
    )
    starts_per_minute: float = Field(
        12.0, gt=0, le=LARGEST, description="starts, uploads, exports, questions of a visitor"
    )
    logins_per_minute: float = Field(6.0, gt=0, le=LARGEST, description="tries to log in of an address")
    burst_seconds: float = Field(20.0, gt=0, le=LARGEST, description="seconds of reads and acts that may come at once")
    address: float = Field(10.0, ge=1, le=LARGEST, description="an address's rate over a visitor's")
    total: float = Field(50.0, ge=1, le=LARGEST, description="everybody's rate over a visitor's")
    open_requests: int = Field(
        32, ge=1, le=LARGEST, description="requests of an address that are open at once, times `address`"
    )
    body_seconds: float = Field(30.0, gt=0, le=LARGEST, description="seconds in which a request's body has to arrive")
    upload_seconds: float = Field(300.0, gt=0, le=LARGEST, description="the same for an uploaded file")


def check_size(spec: ComparisonSpec, limits: PublicLimits) -> None:
    """Refuses a comparison that is larger than a public page takes.

    Raises:
        FormError: a sentence at every field that asks for too much.
    """
    training, runs = spec.training, len(spec.methods) * len(spec.seeds)
    asked = (
        ("training.steps", "steps", training.steps, limits.steps),
        ("training.epochs", "epochs", training.epochs, limits.epochs),
        ("training.batch_size", "rows a step", training.batch_size, limits.batch_size),
        ("training.max_length", "tokens a row", training.max_length, limits.max_length),
        ("training.max_new_tokens", "tokens an answer", training.max_new_tokens, limits.max_length),
        ("train_rows", "training rows", spec.train_rows, limits.train_rows),
        ("eval_rows", "evaluation rows", spec.eval_rows, limits.eval_rows),
        ("methods" if len(spec.methods) > limits.runs else "seeds", "runs (methods times seeds)", runs, limits.runs),
    )
    errors = [
        FieldError(field, f"{value:,} {what} are asked for, and {most:,} are {NEXT}.")
        for field, what, value, most in asked
        if value is not None and value > most
    ]
    if errors:
        raise FormError(errors)
