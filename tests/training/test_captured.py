"""Captured steps: which runs may have them, how the faster way is found, and that a step stays the same step."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from peft_core.methods import fastest, list_methods
from peft_core.training import captured as module
from peft_core.training.captured import MOST_SHAPES, TIMED, UNTIMED, WIDTH, Captured, captured_for, why_not, widened
from peft_core.training.checkpoint import latest_checkpoint
from peft_core.training.loop import _passes, train
from peft_core.training.problems import Encoded
from tests.training.test_loop import DATA, make_run

MEASURED = UNTIMED + TIMED


class Stand:
    """A parameter whose gradient is the sum of the batch; the usual and the replayed way cost what they are told to."""

    def __init__(self, usual: float = 2.0, replayed: float = 1.0, off: float = 0.0, fails: bool = False) -> None:
        self.parameter = nn.Parameter(torch.zeros(()))
        self.seconds, self.costs, self.off, self.fails = 0.0, (usual, replayed), off, fails
        self.taken: list[str] = []
        self.captured = Captured(self.passes, [self.parameter], self.capture, lambda: self.seconds, 1e-3)

    def _take(self, name: str, cost: float, value: torch.Tensor) -> torch.Tensor:
        self.taken.append(name)
        self.seconds += cost
        grad = self.parameter.grad
        self.parameter.grad = value.clone() if grad is None else grad + value
        return value.clone()

    def passes(self, batch, labels):
        return self._take("usual", self.costs[0], batch["x"].sum())

    def capture(self, passes, batch, labels):
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        return lambda batch, labels: self._take("replayed", self.costs[1], batch["x"].sum() + self.off)

    def step(self, width: int = 3) -> str:
        """Takes a step and checks its loss and gradient; says which way was taken last."""
        self.parameter.grad = None
        loss = self.captured({"x": torch.ones(2, width)}, torch.zeros(2))
        assert float(loss) == float(self.parameter.grad) == 2 * width
        return self.taken[-1]


def test_the_faster_way_stays():
    stand = Stand(usual=2.0, replayed=1.0)
    assert [stand.step() for _ in range(2 * MEASURED + 1)] == ["usual"] * (MEASURED + 1) + ["replayed"] * MEASURED
    assert [stand.step() for _ in range(3)] == ["replayed"] * 3
    assert set(stand.captured.chosen().values()) == {"replayed"}


@pytest.mark.parametrize("replayed", [2.0, 3.0])
def test_a_replay_that_is_no_faster_goes(replayed):
    stand = Stand(usual=2.0, replayed=replayed)
    for _ in range(2 * MEASURED + 1):
        stand.step()
    assert [stand.step() for _ in range(3)] == ["usual"] * 3
    assert set(stand.captured.chosen().values()) == {"usual"}


@pytest.mark.parametrize(("replayed", "way"), [(1.0, "replayed"), (3.0, "usual")])
def test_a_resumed_run_goes_the_way_that_was_decided(replayed, way):
    stand, resumed = Stand(replayed=replayed), Stand(replayed=4.0 - replayed)
    for _ in range(2 * MEASURED + 1):
        stand.step()
    resumed.captured.take_over(json.loads(json.dumps(stand.captured.decisions())))
    resumed.step()
    assert [resumed.step() for _ in range(2 * MEASURED)] == [way] * 2 * MEASURED
    assert resumed.captured.decisions() == stand.captured.decisions()


def test_every_shape_is_measured_by_itself():
    stand = Stand()
    for _ in range(2 * MEASURED + 1):
        stand.step(3)
    assert stand.step(4) == "usual" and stand.step(3) == "replayed"
    assert sorted(stand.captured.chosen().values()) == ["measuring", "replayed"]


def test_shapes_beyond_the_most_run_as_usual():
    stand = Stand()
    for width in range(1, MOST_SHAPES + 1):
        stand.step(width)
    assert all(stand.step(MOST_SHAPES + 1) == "usual" for _ in range(2 * MEASURED))
    assert len(stand.captured.chosen()) == MOST_SHAPES


@pytest.mark.parametrize("trouble", [{"fails": True}, {"off": 1.0}, {"off": float("nan")}])
def test_trouble_leaves_the_usual_way_and_one_line(trouble, caplog):
    stand = Stand(**trouble)
    with caplog.at_level(logging.WARNING):
        assert all(stand.step() == "usual" for _ in range(3 * MEASURED))
        assert stand.step(7) == "usual"
    assert len(caplog.records) == 1 and "not captured" in caplog.text
    assert "replayed" not in stand.captured.chosen().values()


def test_gradients_of_before_are_added_to():
    stand = Stand()
    for _ in range(2 * MEASURED + 1):
        stand.parameter.grad = torch.tensor(100.0)
        stand.captured({"x": torch.ones(2, 3)}, torch.zeros(2))
        assert float(stand.parameter.grad) == 106


CAPTURED = {"lora", "capaboost_lora", "bitfit", "head", "full", "prefix", "capaboost_prefix"}
CAPTURED |= {f"{kind}_{places}" for kind in ("adapter", "capaboost") for places in ("pfeiffer", "houlsby")}
CAPTURED |= {f"propetl_{kind}" for kind in ("lora", "pfeiffer", "prefix")}


@pytest.mark.parametrize("method", [m.id for m in list_methods() if "text" in m.modalities])
def test_only_runs_whose_steps_are_the_same_work_are_captured(method):
    reason = why_not(make_run(method))
    assert (reason == "not on CUDA") == (method in CAPTURED), reason


@pytest.mark.parametrize(
    ("method", "training"),
    [
        ("capaboost_lora:masks=dropout", {}),
        ("lora:dropout=0.1", {}),
        ("lora", {"accumulation": 2}),
        ("lora", {"gradient_checkpointing": True}),
    ],
)
def test_options_that_forbid_it(method, training):
    assert why_not(make_run(method, **training)) not in (None, "not on CUDA")


def copying(passes, batch, labels):
    """A capture that keeps its own inputs, as a graph does."""
    kept = {name: value.clone() for name, value in batch.items()}

    def replay(batch, labels):
        for name, value in batch.items():
            kept[name].copy_(value)
        return passes(kept, labels)

    return replay


def test_a_run_keeps_its_curve():
    usual, run = make_run(steps=40), make_run(steps=40)
    clock = iter(range(10**6))
    run.captured = Captured(
        lambda batch, labels: _passes(run, batch, labels), list(run.parameters.values()), copying,
        lambda: float(next(clock)), 1e-3,
    )  # fmt: skip
    expected, found = ([r.loss for r in train(one) if r.event == "step"] for one in (usual, run))
    assert found == pytest.approx(expected, abs=2e-5)
    assert run.captured.chosen() and run.totals.flops > usual.totals.flops


def test_ways_that_were_measured_come_back_with_a_checkpoint(tmp_path, monkeypatch):
    run = make_run(folder=tmp_path)
    monkeypatch.setattr(fastest, "_chosen", {})
    fastest.take_over({"products of a shape": "drawn"})
    run.save()
    monkeypatch.setattr(fastest, "_chosen", {})
    again = make_run(folder=tmp_path)
    again.restore(latest_checkpoint(tmp_path / "checkpoints")[0])
    assert fastest.choices() == {"products of a shape": "drawn"}


def test_without_a_device_nothing_is_captured():
    run = make_run()
    assert run.captured is None and captured_for(run, lambda batch, labels: labels) is None


def test_widths_repeat():
    tokens, labels = torch.full((2, 5), 7), torch.zeros(2)
    batch = {"input_ids": tokens, "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    rows = Encoded({"input_ids": [[7] * 5] * 2}, None, labels, {"input_ids": 1})
    wide = widened(batch, rows, None)
    assert wide["input_ids"].tolist() == [[7] * 5 + [1] * (WIDTH - 5)] * 2
    assert wide["attention_mask"].sum(1).tolist() == [5, 5]
    assert widened(batch, rows, 12)["input_ids"].shape == (2, 12) and widened(batch, rows, 5)["input_ids"] is tokens
    full = {name: value.repeat(1, 4)[:, :WIDTH] for name, value in batch.items()}
    assert widened(full, rows, None)["input_ids"] is full["input_ids"]


@pytest.mark.parametrize("more", ["decoder_input_ids", "labels at positions", "images"])
def test_what_has_labels_at_positions_keeps_its_width(more):
    batch = {"input_ids": torch.ones(1, 3), "attention_mask": torch.ones(1, 3)}
    rows = Encoded({"input_ids": [[1] * 3]}, None, torch.zeros(1), {"input_ids": 0})
    if more == "images":
        batch = {"pixel_values": torch.ones(1, 3, 4, 4)}
    elif more == "decoder_input_ids":
        batch[more] = torch.ones(1, 2)
    else:
        rows = Encoded(rows.tokens, None, [[1]], rows.pad)
    assert widened(batch, rows, None) == batch


class FakeGraph:
    """Replays as a graph does: on the tensors that the captured passes read and wrote, and on no others."""

    work = None

    def replay(self):
        self.work()


def test_a_graph_reads_and_writes_its_own_tensors(monkeypatch):
    parameter, idle = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))
    graphs, calls = [], []

    @contextmanager
    def graph(captured, pool, capture_error_mode):
        graphs.append((captured, pool, capture_error_mode))
        yield

    def passes(batch, labels):
        calls.append(graphs[-1][1] if graphs else "warming up")
        assert parameter.grad is None
        loss = (batch["x"] @ parameter + labels).sum()
        loss.backward()
        value, gradient = loss.detach().clone(), parameter.grad

        def again():
            value.copy_((batch["x"] @ parameter.detach() + labels).sum())
            gradient.copy_(batch["x"].sum(0))

        if graphs:
            graphs[-1][0].work = again
        return value

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {"Stream": lambda: stream, "current_stream": lambda: stream, "stream": lambda one: nullcontext()}
    fakes |= {"CUDAGraph": FakeGraph, "graph": graph, "graph_pool_handle": lambda: "the pool"}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    module._pool.cache_clear()
    replay = module.CudaCapture([parameter, idle])(passes, {"x": torch.ones(2, 3)}, torch.zeros(2))
    module._pool.cache_clear()
    assert calls == ["warming up", "the pool"] and parameter.grad is None
    with torch.no_grad():
        parameter.fill_(2.0)
    given = {"x": torch.tensor([[1.0, 2, 3], [4, 5, 6]])}
    assert float(replay(given, torch.ones(2))) == 2 * 21 + 2 and len(calls) == 2
    assert parameter.grad.tolist() == [5, 7, 9] and idle.grad is None
    parameter.grad = None
    assert float(replay({"x": -given["x"]}, torch.zeros(2))) == -42
    assert parameter.grad.tolist() == [-5, -7, -9]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_captured_run_on_the_device(monkeypatch):
    monkeypatch.setattr(module, "DEVIATION", {"fp32": 1e-3})
    run = make_run(steps=60, device="cuda")
    losses = [record.loss for record in train(run) if record.event == "step"]
    expected = [record.loss for record in train(make_run(steps=60)) if record.event == "step"]
    assert losses == pytest.approx(expected, abs=1e-3) and run.captured is not None
    assert DATA.train.batch([0], run.attached.device)["input_ids"].is_cuda
