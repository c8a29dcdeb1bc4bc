"""What a sweep chooses from its trials, by hand."""

from __future__ import annotations

import pytest

from peft_core.records import Absence, SweepSpec, Trial
from peft_core.report.choice import choices

BASE = {"one": 0.5, "two": 0.0}


def spec(**fields) -> SweepSpec:
    values = {"tasks": ["one"], "methods": ["lora"], "learning_rates": [0.1, 0.01, 0.001], "seeds": [0, 1]}
    return SweepSpec.model_validate(values | fields)


def trials(spec: SweepSpec, scores: dict[tuple[str, str], list[list[float | None]]]) -> list[Trial]:
    """scores: by (task, method), for every setting one score a seed."""
    return [
        Trial(
            key=f"{task}{setting}{seed}",
            model="tiny-text",
            task=task,
            method=method,
            setting=setting,
            learning_rate=setting.options["learning_rate"],
            seed=seed,
            metric="accuracy",
            score=score,
            baseline_score=BASE[task],
            steps=1,
            seconds=1.0,
            error=None if score is not None else "the loss became nan",
            environment=0,
        )
        for (task, method), rows in scores.items()
        for entry in spec.methods
        if str(entry.method) == method
        for setting, row in zip(spec.settings(entry), rows, strict=True)
        for seed, score in zip(spec.seeds, row, strict=True)
    ]


def chosen(spec, scores, absences=()):
    found = choices(spec, trials(spec, scores), absences)
    return found["choices"], found["overall"]


def test_the_best_mean_over_the_seeds_wins():
    (row,), _ = chosen(spec(), {("one", "lora"): [[0.9, 0.5], [0.8, 0.7], [0.6, 0.6]]})
    assert row["learning_rate"] == 0.01 and row["setting"] == "lora:learning_rate=0.01"
    assert row["score"] == pytest.approx(0.75) and row["std"] == pytest.approx(0.05 * 2**0.5)
    assert (row["trials"], row["runs"], row["failed"], row["seeds"], row["edge"], row["said"]) == (3, 6, 0, 2, None, "")


@pytest.mark.parametrize(("best", "edge"), [(0, "lowest"), (2, "highest")])
def test_a_choice_at_the_edge_of_the_grid_says_so(best, edge):
    scores = [[0.6, 0.6] for _ in range(3)]
    scores[best] = [0.7, 0.7]
    (row,), (over_all,) = chosen(spec(), {("one", "lora"): scores})
    assert row["edge"] == over_all["edge"] == edge and f"the {edge} of 3" in row["said"]


def test_one_rate_is_no_choice_among_rates():
    (row,), _ = chosen(spec(learning_rates=[0.1]), {("one", "lora"): [[0.5, 0.5]]})
    assert row["edge"] == "only" and row["trials"] == 1


def test_a_setting_with_a_failed_trial_counts_and_never_wins():
    (row,), (over_all,) = chosen(spec(), {("one", "lora"): [[0.6, 0.6], [0.99, None], [0.5, 0.5]]})
    assert row["learning_rate"] == over_all["learning_rate"] == 0.001
    assert (row["trials"], row["runs"], row["failed"]) == (3, 6, 1)


def test_where_everything_failed_there_is_no_choice():
    (row,), (over_all,) = chosen(spec(), {("one", "lora"): [[None, 0.9], [None, None], [0.9, None]]})
    assert row["learning_rate"] is None and row["score"] is None and "failed" in row["said"]
    assert over_all["learning_rate"] is None and over_all["normalised_score"] is None


def test_of_equal_settings_the_smaller_rate_wins():
    (row,), _ = chosen(spec(), {("one", "lora"): [[0.5, 0.5], [0.7, 0.7], [0.7, 0.7]]})
    assert row["learning_rate"] == 0.01


def test_nothing_is_chosen_from_half_a_grid():
    whole = trials(spec(), {("one", "lora"): [[0.6, 0.6], [0.7, 0.7], [0.5, 0.5]]})
    found = choices(spec(), whole[:-1], [])
    assert found["choices"][0]["learning_rate"] is None and found["overall"][0]["learning_rate"] is None
    assert found["choices"][0]["said"] == "1 trials are still to come"


def test_over_all_tasks_the_mean_of_normalised_scores_decides():
    """Task one, baseline 0.5: (s - 0.5) / 0.5; task two, baseline 0: s. So 0.1 there is worth 0.2 here."""
    two = spec(tasks=["one", "two"], seeds=[0])
    scores = {("one", "lora"): [[0.7], [0.8], [0.5]], ("two", "lora"): [[0.5], [0.2], [0.6]]}
    rows, (over_all,) = chosen(two, scores)
    assert [row["learning_rate"] for row in rows] == [0.01, 0.1]
    assert over_all["learning_rate"] == 0.001 and over_all["normalised_score"] == pytest.approx((0.4 + 0.5) / 2)
    assert over_all["tasks"] == ["one on tiny-text", "two on tiny-text"] and over_all["runs"] == 6


def test_a_setting_that_fails_on_one_task_is_out_over_all():
    two = spec(tasks=["one", "two"], seeds=[0])
    _, (over_all,) = chosen(two, {("one", "lora"): [[0.6], [0.9], [0.5]], ("two", "lora"): [[0.1], [None], [0.1]]})
    assert over_all["learning_rate"] == 0.001


def test_a_method_is_judged_on_the_tasks_where_it_has_a_place():
    two = spec(tasks=["one", "two"], seeds=[0], methods=["lora", "bitfit"])
    absent = Absence(model="tiny-text", task="two", method="bitfit", reason="no biases")
    scores = {(task, "lora"): [[0.6], [0.7], [0.5]] for task in ("one", "two")} | {
        ("one", "bitfit"): [[0.6], [0.5], [0.5]]
    }
    rows, over_all = chosen(two, scores, [absent])
    assert [(row["task"], row["method"]) for row in rows] == [("one", "lora"), ("two", "lora"), ("one", "bitfit")]
    assert over_all[1]["tasks"] == ["one on tiny-text"] and over_all[1]["learning_rate"] == 0.001


def test_options_are_chosen_together_with_the_rate():
    entry = {"method": "lora", "learning_rates": [0.1, 0.01], "options": {"rank": [4, 8]}}
    both = spec(methods=[entry], learning_rates=None, seeds=[0])
    (row,), _ = chosen(both, {("one", "lora"): [[0.5], [0.6], [0.8], [0.7]]})
    assert (row["options"], row["learning_rate"], row["trials"], row["edge"]) == ({"rank": 8}, 0.01, 4, "lowest")
