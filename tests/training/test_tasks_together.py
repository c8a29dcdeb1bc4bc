"""Several tasks in one run: one task a batch, drawn by temperature; a head and scores for each."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from peft_core.methods import resolve
from peft_core.records import ComparisonSpec, InputError, MethodSpec, RunState, TrainingConfig, run_specs
from peft_core.training import check, train_comparison
from peft_core.training.schedule import Schedule, task_shares

TASKS = "acceptability+entailment+similarity"


def spec_of(*methods: str, task: str = TASKS, seeds=(5,), options=None, **training) -> ComparisonSpec:
    values = {"steps": 24, "batch_size": 8, "eval_every": 12} | training
    return ComparisonSpec(
        task=task,
        task_options=options or {},
        methods=tuple(MethodSpec.parse(method) for method in methods),
        seeds=seeds,
        train_rows=64,
        eval_rows=40,
        training=TrainingConfig(**values),
    )


def compare(folder, spec, stop=lambda run: False, resume=False):
    events, notices = [], []
    runs = run_specs("c", spec)
    train_comparison(spec, runs, folder=folder, emit=events.append, notice=notices.append, stop=stop, resume=resume)
    return events, notices


def test_shares_follow_the_temperature():
    assert task_shares([100, 300], 1) == pytest.approx([0.25, 0.75])
    sizes = [392_702 ** (1 / 10), 2_490 ** (1 / 10)]  # MNLI and RTE
    assert task_shares([392_702, 2_490], 10) == pytest.approx([size / sum(sizes) for size in sizes])


def test_a_schedule_draws_one_task_a_batch_and_every_row_of_each():
    schedule = Schedule([[5] * 40, [7] * 20], 4, seed=3, temperature=10)
    drawn = [schedule.batch(step) for step in range(2000)]
    shares = task_shares([40, 20], 10)
    assert Counter(task for task, _ in drawn)[0] / 2000 == pytest.approx(shares[0], abs=0.04)
    for task, count in ((0, 40), (1, 20)):
        batches = [rows for which, rows in drawn if which == task]
        epoch = count // 4
        assert sorted(row for rows in batches[:epoch] for row in rows) == list(range(count))
        assert sorted(row for rows in batches[epoch : 2 * epoch] for row in rows) == list(range(count))
    again = Schedule([[5] * 40, [7] * 20], 4, seed=3, temperature=10)
    assert [again.batch(step) for step in (1999, 4, 700)] == [drawn[step] for step in (1999, 4, 700)]


def test_heads_and_scores_of_each_task(tmp_path):
    events, notices = compare(tmp_path, spec_of("adapter_pfeiffer:bottleneck=4", "lora:rank=4"))
    ends = [event for event in events if event.event == "state" and event.state.ended]
    assert [end.state for end in ends] == [RunState.FINISHED] * 2
    assert {"metric": "mean_score"}.items() <= next(notice for notice in notices if "metric" in notice).items()
    for end in ends:
        score = end.result.score
        firsts = ["acceptability.matthews_correlation", "entailment.accuracy", "similarity.pearson"]
        assert next(iter(score)) == "mean_score" and set(firsts) < set(score)
        assert score["mean_score"] == pytest.approx(sum(score[name] for name in firsts) / 3)
        assert end.result.head_parameters == sum(128 * 128 + 128 + 128 * outputs + outputs for outputs in (2, 3, 1)), (
            "two classes, three classes, one number"
        )
        assert end.result.split.startswith("acceptability: 64 training rows, 40 evaluation rows; ")


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    spec = spec_of("lora:rank=4")
    whole = [e for e in compare(tmp_path / "whole", spec)[0] if e.event == "step"]
    seen: list = []

    def stop(run: str) -> bool:
        seen.append(run)
        return len(seen) > 16

    first, _ = compare(tmp_path / "parts", spec, stop)
    rest, _ = compare(tmp_path / "parts", spec, resume=True)
    steps = [e for e in first + rest if e.event == "step"]
    assert [e.state for e in first if e.event == "state"][-1] is RunState.CANCELLED
    assert [(e.step, e.loss, e.grad_norm) for e in steps] == [(e.step, e.loss, e.grad_norm) for e in whole]


def test_what_one_task_learns_in_its_head_leaves_the_others_alone(tmp_path):
    from peft_core.backbones import initial_head, load_backbone
    from peft_core.methods import get_method
    from peft_core.training.data import load_data
    from peft_core.training.loop import Run, train

    spec = spec_of("head", task="acceptability+sentiment", steps=1)
    backbone = load_backbone("tiny-text", outputs=2, problem="classification")
    data = load_data(spec, backbone)
    attached = get_method("head").attach(backbone, resolve(spec.methods[0]), torch.Generator().manual_seed(0))
    attached.share_among(2)
    for task in range(2):
        attached.train_head(initial_head(backbone, 5), task)
    started = {name: value.detach().clone() for name, value in attached.head_parameters().items()}
    schedule = Schedule([task.train.lengths() for task in data], 8, 0, 10)
    run = Run(run_specs("c", spec)[0], resolve(spec.methods[0]), attached, data, schedule)
    list(train(run))
    chosen = schedule.batch(0)[0]
    changed = {name for name, value in attached.head_parameters().items() if not torch.equal(value, started[name])}
    assert changed and {name[0] for name in changed} == {str(chosen)}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (spec_of("lora", task="sentiment+sentiment"), "task is 'sentiment+sentiment'; 'sentiment' must be named once."),
        (spec_of("lora", task="sentiment+colour"), "task is 'colour'; it must be one of"),
        (spec_of("lora", task="sentiment+digits"), "task is 'digits'; tiny-text takes text tasks"),
        (
            spec_of("lora", task="sentiment+rank_probe", options={"rank": 2}),
            "task_options.rank is 2; with several tasks it must be sentiment.<option>",
        ),
        (
            spec_of("lora", task="sentiment+rank_probe", options={"rank_probe.rank": 0}),
            "task_options.rank is 0; it must be a whole number",
        ),
    ],
)
def test_what_cannot_train_together_is_refused(spec, said):
    with pytest.raises(InputError) as refused:
        check(spec)
    assert str(refused.value).startswith(said)


def test_an_encoder_decoder_answers_every_task_in_its_words(tmp_path):
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from peft_core.tasks import get_tasks
    from tests.miniatures import MINIATURES

    tasks = "entailment+paraphrase+acceptability"
    labels = [label for task, _ in get_tasks(tasks) for label in task.info.labels]
    words = ["<pad>", "</s>", "<unk>", *dict.fromkeys(word for label in labels for word in label.split())]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = tmp_path / "model"
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    values = MINIATURES["t5"] | {"pad_token_id": 0, "eos_token_id": 1}
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    spec = spec_of("lora:rank=4", "propetl_pfeiffer:bottleneck=4", task=tasks).model_copy(update={"model": str(folder)})
    check(spec)
    events, _ = compare(tmp_path / "runs", spec)
    ends = [event for event in events if event.event == "state" and event.state.ended]
    assert [end.state for end in ends] == [RunState.FINISHED] * 2
    assert all(end.result.head_parameters == 0 and "entailment.accuracy" in end.result.score for end in ends)
    with pytest.raises(InputError, match=r"task is 'similarity'; .* answers in words, so the task must have classes"):
        check(spec.model_copy(update={"task": "entailment+similarity"}))
