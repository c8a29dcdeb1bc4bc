"""results.json (CLI.md): everything a comparison measured, as one strict JSON document."""

from __future__ import annotations

from typing import Any

from peft_core.records import RunResult, RunRow, View
from peft_core.report.series import RunPoints, points
from peft_core.report.tables import RESULT_FIGURES, strict, summary

RESULT_KEYS = (
    "score",
    "baseline_score",
    "split",
    "selection",
    "selected_step",
    "steps",
    "learning_rate",
    "trials",
    "begun_from",
    "rank",
    "rank_of",
    "example_flops",
    "example_adapter_flops_executed",
    "example_adapter_flops_nominal",
    "steps_left_out",
    "device_name",
    *RESULT_FIGURES,
)


def results_document(view: View, reference: str | None = None) -> dict[str, Any]:
    """The document. Needs a view with all events: the curves come from them.

    Args:
        reference: label that the summary's differences are to; the first one if unsaid.
    """
    comparison = view.comparison
    reported = points(view.events)
    return strict(
        {
            "comparison": {
                **comparison.spec.model_dump(mode="json"),
                "id": comparison.id,
                "created": comparison.created,
                "state": str(comparison.state),
                "metric": comparison.metric,
            },
            "environment": comparison.environment,
            "plan": comparison.plan,
            "runs": [_run(run, reported.get(run.run, RunPoints()), view) for run in view.runs],
            "summary": summary(view, reference),
        }
    )


def _run(run: RunRow, reported: RunPoints, view: View) -> dict[str, Any]:
    metric = view.comparison.metric
    curve = zip(reported.evaluations["step"], reported.evaluations["scores"], strict=True)
    return {
        "run": run.run,
        "method": run.method.id,
        "label": run.label,
        "config": run.config,
        "seed": run.seed,
        "state": str(run.state),
        **_figures(run.result, view),
        "curve": [[step, scores.get(metric)] for step, scores in curve],
        "error": run.error,
    }


def _figures(result: RunResult | None, view: View) -> dict[str, Any]:
    if result is None:
        missing: dict[str, Any] = dict.fromkeys(RESULT_KEYS)
        return {**missing, "baseline_score": view.comparison.baseline_score}
    dumped = result.model_dump(mode="json")
    return {key: dumped[key] for key in RESULT_KEYS}
