"""ProPETL over several tasks (section 3.4): a mask for every task beside that of every layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from peft_core.backbones import initial_head
from peft_core.methods import get_method, resolve
from peft_core.methods._propetl import LearnedMask, pack_bits
from peft_core.metrics.parameters import trainable_parameters
from peft_core.metrics.storage import stored_bits
from peft_core.records import InputError, MethodSpec, RunState
from peft_core.training.evaluate import layer_ranks
from tests.conftest import batch_for, miniature
from tests.training.test_tasks_together import compare, spec_of

TASKS, WIDTH, BN = 3, 32, 4
SPECS = ["propetl_pfeiffer:bottleneck=4", "propetl_lora:rank=4", "propetl_prefix:length=4,bottleneck=16"]


def attach(method: str, family: str = "roberta", tasks: int = TASKS, seed: int = 1):
    spec, backbone = MethodSpec.parse(method), miniature(family)
    attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(seed))
    attached.share_among(tasks)
    for task in range(tasks):
        attached.train_head(initial_head(backbone, seed), task)
    return attached


def kept(scores: torch.Tensor) -> torch.Tensor:
    """The larger half of |scores|, by sorting."""
    order = scores.detach().abs().flatten().argsort(descending=True)
    mask = torch.zeros(scores.numel())
    mask[order[: scores.numel() - scores.numel() // 2]] = 1
    return mask.view_as(scores)


@pytest.mark.parametrize(
    ("how", "combined"),
    [("or", lambda a, b: torch.maximum(a, b)), ("and", lambda a, b: a * b), ("add", lambda a, b: a + b)],
)
def test_a_layer_in_a_task_uses_both_masks(how, combined):
    attached = attach(f"propetl_pfeiffer:bottleneck=4,task_masks={how}")
    trainable = attached.trainable()
    with torch.no_grad():
        trainable["adapter.prototype.adapter.U"].normal_(0, 0.1)
    for task in range(TASKS):
        attached.task = task
        for layer in range(2):
            module = attached.modules[f"layer.{layer}.ffn"]
            weight = trainable["adapter.prototype.adapter.V"]
            own = kept(trainable[f"adapter.layer.{layer}.ffn.mask_V.scores"])
            of_task = kept(trainable[f"adapter.task.{task}.adapter.mask_V.scores"])
            assert torch.equal(module.mask_V(weight).squeeze(0), weight * combined(own, of_task))
    values = {float(value) for value in combined(own, of_task).unique()}
    assert values == ({0.0, 1.0, 2.0} if how == "add" else {0.0, 1.0})


@pytest.mark.parametrize("method", SPECS)
def test_every_layer_and_every_task_has_scores_of_its_own(method):
    attached = attach(method)
    masks = {
        id(part.scores)
        for module in attached.modules.values()
        for part in module.modules()
        if isinstance(part, LearnedMask)
    }
    scores = {name: value for name, value in attached.trainable().items() if name.endswith(".scores")}
    assert len(scores) == len(masks), "the authors' code lets the first layer share the last task's"
    tasks = [name for name in scores if ".task." in name]
    assert len({name.split(".")[2] for name in tasks}) == TASKS
    values = [value for value in scores.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(values) for b in values[:i] if a.shape == b.shape)
    assert all(attached.groups[name].rate is not None for name in scores)


def test_the_gradient_of_both_scores_goes_straight_through():
    attached = attach("propetl_pfeiffer:bottleneck=4")
    attached.task = 1
    module = attached.modules["layer.0.ffn"]
    parameters = attached.trainable()
    weight = parameters["adapter.prototype.adapter.V"]
    layer, task = (parameters[f"adapter.{name}.mask_V.scores"] for name in ("layer.0.ffn", "task.1.adapter"))
    flow = torch.randn(weight.shape)
    (module.mask_V(weight).squeeze(0) * flow).sum().backward()
    to_mask = flow * weight.detach()
    torch.testing.assert_close(layer.grad, layer.detach().sign() * to_mask * (1 - kept(task)))
    torch.testing.assert_close(task.grad, task.detach().sign() * to_mask * (1 - kept(layer)))
    torch.testing.assert_close(weight.grad, flow * torch.maximum(kept(layer), kept(task)))


def test_only_the_task_of_the_batch_learns_its_mask_and_head():
    attached = attach("propetl_pfeiffer:bottleneck=4")
    with torch.no_grad():
        attached.trainable()["adapter.prototype.adapter.U"].normal_(0, 0.1)
    attached.train()
    attached.task = 2
    with attached.active():
        F.cross_entropy(attached.logits(batch_for(attached.backbone)), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    touched = {name for name, value in attached.trainable().items() if value.grad is not None}
    others = [name for name in touched if ".task." in name or name.startswith("head.")]
    assert others and all(name.startswith(("adapter.task.2.", "head.2.")) for name in others)
    assert all(f"adapter.layer.{layer}.ffn.mask_V.scores" in touched for layer in range(2))


def test_counts_are_n_times_layers_and_tasks():
    attached = attach("propetl_pfeiffer:bottleneck=4")
    n, n_b = 2 * BN * WIDTH, 2 * BN * WIDTH + BN + WIDTH
    assert trainable_parameters(attached.counts) == n_b + n * (2 + TASKS)
    assert stored_bits(attached.counts) == 32 * n_b + n * (2 + TASKS)
    masks = attached.stored()["masks"]
    assert masks.dtype == torch.uint8 and masks.numel() == n * (2 + TASKS) // 8


@pytest.mark.parametrize("method", SPECS)
def test_what_is_stored_answers_every_task_as_before(method):
    attached = attach(method)
    with torch.no_grad():
        for name, value in attached.trainable().items():
            if value.dim() > 1 and "scores" not in name:
                value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(3)))
    attached.train(False)
    again = attach(method)
    again.load_stored(attached.stored(), attached.stored_head())
    again.train(False)
    batch, answers = batch_for(attached.backbone), []
    for task in range(TASKS):
        attached.task = again.task = task
        with torch.no_grad(), attached.active():
            answers.append(attached.logits(batch))
        with torch.no_grad(), again.active():
            assert torch.equal(again.logits(batch), answers[-1])
    assert not torch.equal(answers[0], answers[1])


def test_ranks_are_measured_in_every_task():
    attached = attach("propetl_lora:rank=4")
    with torch.no_grad():
        for name, value in attached.trainable().items():
            if name.endswith(".B"):
                value.normal_(0, 0.1)
    _, layers = layer_ranks(attached, ("a", "b", "c"))
    assert [layer.site for layer in layers[:5]] == [f"{site.name}@a" for site in attached.backbone.sites()] + [
        f"{attached.backbone.sites()[0].name}@b"
    ]
    for layer, task in ((layers[0], 0), (layers[4], 1)):
        attached.task = task
        left, right = attached.modules["layer.0.q"].factors()
        assert layer.numerical == int(torch.linalg.matrix_rank((left @ right).double(), rtol=1e-6))
        assert layer.norm == pytest.approx(float((left @ right).detach().norm()), rel=1e-4)


def test_without_task_masks_all_tasks_use_the_layers_own():
    attached = attach("propetl_pfeiffer:bottleneck=4,task_masks=off")
    assert not any(".task." in name for name in attached.trainable())
    alone = attach("propetl_pfeiffer:bottleneck=4", tasks=1)
    assert {"task"} <= {name.split(".")[0] for name in alone.modules}, "one task asked for as several has a mask too"


def test_task_masks_need_a_shared_prototype():
    with pytest.raises(InputError, match=r"share is False; with task masks it must be true"):
        attach("propetl_pfeiffer:bottleneck=4,share=false")


def test_packed_bits_of_tasks_follow_those_of_layers():
    attached = attach("propetl_pfeiffer:bottleneck=4")
    names = [f"layer.{layer}.ffn.mask_{role}" for layer in range(2) for role in "VU"]
    names += [f"task.{task}.adapter.mask_{role}" for role in "VU" for task in range(TASKS)]
    trainable = attached.trainable()
    bits = torch.cat([kept(trainable[f"adapter.{name}.scores"]).flatten().bool() for name in names])
    assert torch.equal(attached.stored()["masks"], pack_bits(bits))


def test_plain_adapters_train_on_the_same_batches(tmp_path):
    events, _ = compare(tmp_path, spec_of("adapter_pfeiffer:bottleneck=4", *SPECS, steps=6, eval_every=6))
    ends = [event for event in events if event.event == "state" and event.state.ended]
    assert [end.state for end in ends] == [RunState.FINISHED] * 4
    started = [event.scores for event in events if event.event == "eval" and event.step == 0]
    assert all(set(scores) == set(started[0]) for scores in started)
