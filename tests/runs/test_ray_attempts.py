"""A job on a cluster, attempt after attempt, and what is told of it: no cluster is needed."""

from __future__ import annotations

import json
import time

import pytest

from peft_core.records import Offer, Plan, RunState, StateRecord
from peft_core.runs.job import OUT_OF_MEMORY
from peft_core.runs.ray_options import RayOptions
from peft_core.runs.ray_worker import MOST_UNBEGUN, RayWorker
from tests.runs.ray_trainer import job


class Fake:
    """An executor that only notes what it is told."""

    def __init__(self, restarts=2):
        self.options = RayOptions(restarts=restarts)
        self.lines, self.due = [], []

    def tell(self, line):
        self.lines.append(line)

    def again(self, worker):
        self.due.append(worker)

    def forget(self, worker, number):
        self.lines.append({"end": number})


def step(run, number):
    return {"event": {"event": "step", "run": run, "step": number}, "n": number}


def ended_event(run, state=RunState.FINISHED):
    return {"event": json.loads(StateRecord(run=run, step=3, state=state).model_dump_json())}


def test_what_is_left_begins_again_and_no_event_comes_twice(tmp_path):
    line = Fake()
    worker = RayWorker(job(tmp_path, methods=2), line)
    first = worker.begin(1)["job"]
    assert first["numbered"] and not first["resume"]
    one, two = first["runs"]
    worker.hear({"begun": True})
    worker.hear({"reports": [step(one, 1), step(one, 2), ended_event(one), step(two, 1), step(two, 2)]})
    worker.hear({"lost": "the node was lost"})
    assert line.due == [worker] and worker.ended() is None
    again = worker.begin(2)["job"]
    assert (again["runs"], again["events"], again["resume"]) == ([two], {one: 2, two: 2}, True)
    worker.hear({"reports": [step(two, 2), step(two, 3)]})
    reports = worker.inbox.take(0)
    events = [
        (report["event"]["run"], report["event"]["step"])
        for report in reports
        if report.get("event", {}).get("event") == "step"
    ]
    assert events == [(one, 1), (one, 2), (two, 1), (two, 2), (two, 3)]
    (said,) = [report["notice"]["message"] for report in reports if "notice" in report]
    assert said == "The node was lost; worker 1 goes on from its last checkpoints (1 of 2 times)."
    assert not any("n" in report for report in reports)


@pytest.mark.parametrize(
    ("why", "how", "reason"),
    [
        ("the node was lost", "killed", "the node was lost, 3 times"),
        ("the node ran out of memory", "out_of_memory", OUT_OF_MEMORY),
    ],
)
def test_attempts_are_bounded(tmp_path, why, how, reason):
    line = Fake(restarts=2)
    worker = RayWorker(job(tmp_path), line)
    for number in (1, 2, 3):
        assert worker.ended() is None
        worker.begin(number)
        worker.hear({"begun": True})
        worker.hear({"lost": why})
    assert len(line.due) == 2 and (worker.ended().how, worker.ended().reason) == (how, reason)


def test_an_attempt_that_had_not_begun_does_not_count(tmp_path):
    line = Fake(restarts=0)
    worker = RayWorker(job(tmp_path), line)
    for number in range(1, 6):
        worker.begin(number)
        worker.hear({"waits": "1 CPU"})
        worker.hear({"lost": "the connection to the cluster was lost"})
    assert len(line.due) == 5 and worker.ended() is None
    (said,) = worker.inbox.take(0)
    assert said == {"notice": {"message": "Worker 1 waits for room on the cluster (1 CPU)."}}
    worker.begin(6)
    worker.hear({"begun": True})
    assert worker.inbox.take(0) == [{"notice": {"message": None}}]


def test_attempts_that_never_begin_are_bounded_too_and_wait_longer_each_time(tmp_path):
    line, due = Fake(restarts=0), []
    worker = RayWorker(job(tmp_path), line)
    for number in range(1, 1 + MOST_UNBEGUN):
        worker.begin(number)
        worker.hear({"lost": "the node ran out of memory"})
        due.append(worker.due - time.monotonic())
    assert worker.ended() is None and due[0] < 1.01 and due[1] > 1.5 and 9 < max(due) <= 10
    (said,) = worker.inbox.take(0)
    assert said == {"notice": {"message": "The node ran out of memory; worker 1 is tried again."}}
    worker.begin(99)
    worker.hear({"lost": "the node ran out of memory"})
    assert worker.ended().how == "out_of_memory"


def test_a_worker_that_is_given_up_says_no_more_that_it_goes_on(tmp_path):
    worker = RayWorker(job(tmp_path), Fake(restarts=1))
    for number in (1, 2):
        worker.begin(number)
        worker.hear({"begun": True})
        worker.hear({"lost": "the node was lost"})
    told = [report["notice"]["message"] for report in worker.inbox.take(0)]
    assert told[0].startswith("The node was lost; worker 1 goes on") and told[1:] == [None]


def test_a_worker_that_fails_by_itself_is_not_tried_again(tmp_path):
    line = Fake()
    worker = RayWorker(job(tmp_path), line)
    worker.begin(1)
    worker.hear({"ending": {"how": "failed", "reason": "the worker crashed (SIGSEGV)", "log": ""}})
    assert not line.due and worker.ended().reason == "the worker crashed (SIGSEGV)"


def test_the_plan_that_was_chosen_stays_and_the_first_share_goes_on(tmp_path):
    line = Fake()
    worker = RayWorker(job(tmp_path, methods=4, offer=Offer(workers=2, cores=1)), line)
    runs = worker.begin(1)["job"]["runs"]
    plan = Plan(workers=2, shares=((runs[0], runs[2]), (runs[1], runs[3])))
    worker.hear({"reports": [{"notice": {"plan": plan.model_dump(mode="json")}}]})
    worker.hear({"lost": "the node was lost"})
    again = worker.begin(2)["job"]
    assert again["runs"] == [runs[0], runs[2]] and Plan.model_validate(again["plan"]) == plan


def test_a_worker_that_was_offered_nothing_tells_plans_of_its_parts_and_gets_none(tmp_path):
    worker = RayWorker(job(tmp_path, methods=2), Fake())
    runs = worker.begin(1)["job"]["runs"]
    plan = Plan(workers=2, shares=((runs[0],), (runs[1],)))
    worker.hear({"reports": [{"notice": {"plan": plan.model_dump(mode="json")}}]})
    worker.hear({"lost": "the node was lost"})
    again = worker.begin(2)["job"]
    assert again["plan"] is None and again["runs"] == runs


def test_what_was_taken_is_told_and_a_stop_reaches_the_next_attempt(tmp_path):
    line = Fake()
    worker = RayWorker(job(tmp_path), line)
    (run,) = worker.begin(7)["job"]["runs"]
    worker.hear({"reports": [step(run, 1), step(run, 2), step(run, 2)]})
    assert len(worker.inbox.take(0)) == 2
    assert sum(told["count"] for told in line.lines if "took" in told) == 3
    worker.stop(run)
    worker.hear({"lost": "the node was lost"})
    worker.begin(8)
    worker.hear({"begun": True})
    assert [told for told in line.lines if "stop" in told] == [{"stop": 7, "run": run}, {"stop": 8, "run": run}]
    worker.kill()
    assert worker.ended().how == "stopped" and line.lines[-1] == {"end": 8}
