"""Which plan is chosen from given figures, how runs are dealt to workers, and what is recorded."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from peft_core.records import Offer, Plan
from peft_core.training import plan
from peft_core.training.plan import Measured, Work, best, candidates, shares

TWO = Offer(workers=2, cores=2, start_seconds=0.7)
LONG, SHORT = Work(2000, 100.0), Work(250, 100.0)


@pytest.mark.parametrize(
    ("measured", "workers", "work", "execution", "count", "threads"),
    [
        # the figures: 20 ms with two threads and 23 with one, 8 batches folded 1.25 times as fast
        (Measured({1: 43.0, 2: 50.0}, {2: 62.0}, 45.0, idle=1.0), 2, LONG, "apart", 2, 1),
        (Measured({1: 43.0, 2: 50.0}, {2: 62.0}, 60.0, idle=1.0), 2, LONG, "lockstep", 2, 1),
        (Measured({1: 43.0, 2: 50.0}, {2: 112.0}, 60.0, idle=1.0), 2, LONG, "lockstep", 1, 2),
        # another program has the second core
        (Measured({1: 43.0, 2: 30.0}, {2: 35.0}, 44.0, idle=0.1), 2, LONG, "apart", 1, 1),
        # no memory, or no core, for a second worker
        (Measured({1: 43.0, 2: 50.0}, idle=1.0), 1, LONG, "apart", 1, 2),
        # what folding gains is less than the noise
        (Measured({1: 43.0}, {1: 44.0}), 1, LONG, "apart", 1, 1),
        (Measured({1: 43.0}, {1: 60.0}), 1, LONG, "lockstep", 1, 1),
        # evaluations are not folded
        (Measured({1: 43.0}, {1: 48.0}), 1, Work(100, 2000.0), "apart", 1, 1),
    ],
)
def test_the_plan_that_ends_first_is_chosen(measured, workers, work, execution, count, threads):
    found = candidates(measured, TWO, workers, work)
    chosen = best(found)
    assert (chosen.execution, chosen.workers, chosen.threads) == (execution, count, threads)
    assert plan.why_measured(chosen, found).endswith(".")


def test_a_worker_that_starts_slowly_is_not_worth_it_for_little_work():
    measured = Measured({1: 43.0, 2: 50.0}, idle=1.0)
    warm, cold = (best(candidates(measured, Offer(workers=2, cores=2, start_seconds=s), 2, SHORT)) for s in (0.7, 4.0))
    assert (warm.workers, cold.workers) == (2, 1)


def test_the_sentence_says_how_much_and_beside_what():
    found = candidates(Measured({1: 43.0, 2: 50.0}, {2: 62.0}, idle=1.0), TWO, 2, LONG)
    assert plan.why_measured(best(found), found, ["full trains the backbone's own weights"]) == (
        "2 workers, each in turns with one thread: about 81.7 steps a second by a short measurement, "
        "1.32 times one worker, in lockstep with 2 threads."
    )
    assert plan.why_given("lockstep", 1, 2, ["full trains the backbone's own weights"]) == (
        "One worker, in lockstep with 2 threads, as the comparison asks. "
        "By itself: full trains the backbone's own weights."
    )
    assert plan.why_rule(1, 80, TWO) == (
        "One worker, in turns with one thread: 80 steps are done before another way would pay."
    )


def test_shares_are_balanced_and_keep_what_is_alike_together():
    kinds = {"a": "lora", "b": "full", "c": "lora", "d": "full", "e": "head", "f": "head"}
    even = dict.fromkeys(kinds, 1.0)
    dealt = shares(even, kinds, 2)
    assert dealt[0][0] == "a" and sorted(run for share in dealt for run in share) == sorted(kinds)
    assert [len(share) for share in dealt] in ([4, 2], [2, 4], [3, 3])
    assert max(map(len, dealt)) == 3, "balance comes first"
    four = {run: "one" if run in "ab" else "two" for run in "abcd"}
    assert shares(dict.fromkeys("abcd", 2.0), four, 2) == (("a", "b"), ("c", "d"))
    costs = {"a": 1.0, "b": 4.0, "c": 1.0, "d": 1.0, "e": 1.0}
    assert shares(costs, {run: run for run in costs}, 2) == (("a", "c", "d", "e"), ("b",))
    assert shares({"a": 1.0, "b": 1.0}, {"a": "x", "b": "x"}, 3) == (("a",), ("b",))


def test_workers_fit_into_memory():
    gib = 2**30
    assert plan.workers_that_fit(4, gib, gib, None) == 4
    assert plan.workers_that_fit(4, gib, gib, 100 * gib) == 4
    assert plan.workers_that_fit(4, gib, 2 * gib, 4 * gib) == 2
    assert plan.workers_that_fit(4, gib, 2 * gib, gib) == 1


def test_a_recorded_plan_is_read_again_and_older_ones_too():
    made = Plan(execution="lockstep", workers=2, threads=1, shares=(("a", "b"), ("c",)), groups=(("a", "b"),))
    assert Plan.recorded(made.model_dump(mode="json") | {"device": "cpu"}) == made
    assert (made.share_of("c"), made.share_of("a"), made.share_of("later")) == (1, 0, 0)
    assert made.groups_with(["b"]) == [("a", "b")] and made.groups_with(["c"]) == []
    older = Plan.recorded({"execution": "apart", "workers": 1, "threads": 2, "memory_bytes": {"backbone": 3}})
    assert older is not None and (older.threads, older.shares) == (2, ())
    assert Plan.recorded({}) is None and Plan.recorded({"device": "cpu"}) is None
    with pytest.raises(ValidationError):
        Plan(workers=0)


def test_a_smaller_machine_is_named():
    made = Plan(workers=2, threads=1)
    assert plan.fewer_cores(made, 2) is None
    assert plan.fewer_cores(made, 1) == (
        "The plan of this comparison needs 2 cores and 1 core can be used here, so it goes on slower."
    )
