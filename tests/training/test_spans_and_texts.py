"""Answers that are spans, and answers that are written: encoding, loss, decoding, and whole runs on random models."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from peft_core.backbones._backbone import TransformerBackbone
from peft_core.backbones._family import family_of
from peft_core.methods import get_method, resolve
from peft_core.records import ComparisonSpec, MethodSpec, RunSpec, TrainingConfig
from peft_core.tasks import Rows, TaskInfo
from peft_core.training.data import TaskData
from peft_core.training.loop import Run, train
from peft_core.training.problems import IGNORED, problem_of
from peft_core.training.problems._spans import best_span
from peft_core.training.schedule import Schedule
from tests.miniatures import MINIATURES

WORDS = ["<pad>", "</s>", "<unk>", "<s>", *(f"w{number}" for number in range(50))]
INFO = TaskInfo(
    id="toy",
    title="toy",
    description="",
    kind="span_qa",
    modality="text",
    metrics=("exact_match", "qa_f1"),
    labels=None,
    outputs=2,
    train_rows=8,
    eval_rows=4,
    max_train_rows=8,
    max_eval_rows=4,
)
WRITTEN = dataclasses.replace(INFO, kind="generation", metrics=("bleu",), outputs=0)


def tokenizer(pair: str | None = "<s> $A </s> $B </s>", single: str = "$A </s>"):
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<s>", 3), ("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    )


def backbone_of(family: str, problem: str, seed: int = 0) -> TransformerBackbone:
    values = MINIATURES[family] | {"pad_token_id": 0, "eos_token_id": 1}
    found = family_of(values["model_type"])
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    config.decoder_start_token_id = 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, found.task(problem).auto_model).from_config(config)
    plain = tokenizer(single="$A") if family == "gpt2" else tokenizer()
    limit = None if family == "t5" else 36
    return TransformerBackbone(family, found, model, processor=plain, max_length=limit, outputs=2, problem=problem)


def questions(*entries) -> Rows:
    asked, contexts, answers = zip(*entries, strict=True)
    return Rows({"question": list(asked), "context": list(contexts), "answers": list(answers)}, None)


CONTEXT = " ".join(f"w{number}" for number in range(10, 40))
QUESTIONS = questions(
    ("w1 w2", CONTEXT, (("w12 w13", CONTEXT.index("w12")),)),
    ("w3", CONTEXT, (("w38", CONTEXT.index("w38")),)),
    ("w4 w5", "w9 w8 w7", ()),
)


def test_windows_cover_a_long_context_and_mark_the_answer():
    backbone = backbone_of("roberta", "span")
    training = TrainingConfig(max_length=20)
    rows = problem_of(INFO).encode(QUESTIONS, INFO, backbone, training)
    assert max(rows.lengths()) == 20 and len(rows) > 3 and sorted(set(rows.row_of)) == [0, 1, 2]
    for row, (context, answers) in enumerate(zip(rows.contexts, rows.answers, strict=True)):
        windows = [window for window, of in enumerate(rows.row_of) if of == row]
        covered = {
            character for window in windows for first, last in rows.offsets[window] for character in range(first, last)
        }
        assert covered == {place for place, letter in enumerate(context) if letter != " "}
        held = [window for window in windows if rows.labels[window].tolist() != [0, 0]]
        assert bool(held) == bool(answers)
        for window in held:
            first, last = rows.labels[window].tolist()
            begin, end = rows.offsets[window][first][0], rows.offsets[window][last][1]
            assert context[begin:end] == answers[0][0]


def test_a_question_longer_than_the_window_is_cut():
    backbone = backbone_of("roberta", "span")
    long = questions((" ".join(["w1"] * 100), CONTEXT, (("w12", CONTEXT.index("w12")),)))
    rows = problem_of(INFO).encode(long, INFO, backbone, TrainingConfig(max_length=20))
    assert max(rows.lengths()) == 20 and any(label != [0, 0] for label in rows.labels.tolist())


def test_the_best_span_is_found_among_all():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 2, generator=generator)
    offsets = [(0, 0)] * 5 + [(3 * place, 3 * place + 2) for place in range(40)] + [(0, 0)] * 5
    candidates = [
        (float(scores[first, 0] + scores[last, 1]), offsets[first][0], offsets[last][1])
        for first in range(5, 45)
        for last in range(first, min(45, first + 30))
    ]
    assert best_span(scores, offsets) == pytest.approx(max(candidates))
    assert best_span(scores[:5], offsets[:5]) is None


def run_of(backbone, info, train_rows: Rows, eval_rows: Rows, method="lora:rank=4", **training) -> Run:
    config = TrainingConfig(**{"steps": 3, "batch_size": 2, "eval_every": 3, "learning_rate": 0.01} | training)
    spec = MethodSpec.parse(method)
    attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(0))
    head = {name: backbone.model.get_parameter(name).detach().clone() for name in backbone.head_parameters()}
    attached.train_head(head)
    problem = problem_of(info)
    encoded = (problem.encode(rows, info, backbone, config) for rows in (train_rows, eval_rows))
    data = TaskData(info, *problem.settle(*encoded))
    comparison = ComparisonSpec(methods=(spec,), training=config)
    schedule = Schedule([data.train.lengths()], config.batch_size, 0, 10)
    run = RunSpec(run="c-0", comparison=comparison, method=spec, label=str(spec), seed=0)
    return Run(run, resolve(spec), attached, (data,), schedule)


def test_spans_are_learned():
    entries = [(f"w{key}", CONTEXT, ((f"w{key + 10}", CONTEXT.index(f"w{key + 10}")),)) for key in range(8)]
    run = run_of(
        backbone_of("roberta", "span"),
        INFO,
        questions(*entries),
        questions(*entries),
        steps=150,
        eval_every=150,
        batch_size=8,
    )
    evaluations = [record for record in train(run) if record.event == "eval"]
    assert evaluations[-1].loss < evaluations[0].loss - 0.5
    assert evaluations[-1].scores["exact_match"] > evaluations[0].scores["exact_match"]


def test_an_empty_answer_wins_only_where_rows_may_have_none():
    run = run_of(backbone_of("roberta", "span"), INFO, QUESTIONS, QUESTIONS)
    head = run.attached.head
    with torch.no_grad():
        for value in head.values():
            value.zero_()
    scores, *_ = run.data[0].problem.evaluate(run.attached, run.data[0].evaluation, INFO, run.training)
    assert scores["exact_match"] == 0.0, "all spans are as good as none: the first span is taken"
    baseline = run.data[0].problem.baseline(INFO, run.data[0].train, run.data[0].evaluation)
    assert baseline == pytest.approx(1 / 3), "one row of three has no answer"


# --- texts ---

SOURCES = ["w5 w6 w7", "w8 w9", "w10 w11 w12 w13", "w5 w9 w11"]


def pairs(*targets: str) -> Rows:
    return Rows({"text": SOURCES[: len(targets)], "target": [(target,) for target in targets]}, None)


TARGETS = pairs("w20 w21", "w22", "w20 w22 w23", "w21 w20")


def test_an_encoder_decoder_reads_the_source_and_writes_the_target():
    backbone = backbone_of("t5", "generation")
    rows = problem_of(WRITTEN).encode(TARGETS, WRITTEN, backbone, TrainingConfig())
    batch, labels = rows.batch([0, 1], torch.device("cpu")), rows.labels_of([0, 1], torch.device("cpu"))
    ids = {word: index for index, word in enumerate(WORDS)}
    assert batch["input_ids"].tolist() == [[ids["w5"], ids["w6"], ids["w7"], 1], [ids["w8"], ids["w9"], 1, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert labels.tolist() == [[ids["w20"], ids["w21"], 1], [ids["w22"], 1, IGNORED]]
    assert batch["decoder_input_ids"].tolist() == [[0, ids["w20"], ids["w21"]], [0, ids["w22"], 0]]
    assert rows.longest == 4 and rows.weight([0, 1]) == 5


def test_a_decoder_is_trained_on_what_stands_behind_the_source_alone():
    backbone = backbone_of("gpt2", "generation")
    rows = problem_of(WRITTEN).encode(TARGETS, WRITTEN, backbone, TrainingConfig())
    ids = {word: index for index, word in enumerate(WORDS)}
    source, target = [ids[w] for w in ("w5", "w6", "w7")], [ids["w20"], ids["w21"]]
    assert rows.tokens["input_ids"][0] == [*source, 3, *target, 1]
    assert rows.labels[0] == [IGNORED] * 3 + [*target, 1, IGNORED]
    assert rows.prompts.tokens["input_ids"][0] == [*source, 3]
    batch, labels = rows.batch(range(4), torch.device("cpu")), rows.labels_of(range(4), torch.device("cpu"))
    logits = backbone.logits(batch)
    plain = [
        -F.log_softmax(logits[row, place], -1)[label]
        for row in range(4)
        for place, label in enumerate(rows.labels[row])
        if label != IGNORED
    ]
    torch.testing.assert_close(problem_of(WRITTEN).loss(logits, labels), torch.stack(plain).mean())


@pytest.mark.parametrize("family", ["t5", "gpt2"])
@pytest.mark.parametrize("method", ["lora:rank=4,sites=six", "adamix:bottleneck=4"])
def test_texts_are_learned(family, method):
    run = run_of(
        backbone_of(family, "generation"), WRITTEN, TARGETS, TARGETS, method, steps=60, batch_size=4, eval_every=60
    )
    assert run.data[0].evaluation.max_new_tokens == 4
    first, last = (record for record in train(run) if record.event == "eval")
    assert last.loss < first.loss - 0.2 and last.scores["bleu"] >= first.scores["bleu"]


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_accumulated_parts_weigh_by_their_tokens(family):
    norms = []
    for parts in (1, 4):
        backbone = backbone_of(family, "generation")
        run = run_of(backbone, WRITTEN, TARGETS, TARGETS, batch_size=4, accumulation=parts, eval_every=100)
        norms.append([record.grad_norm for record in train(run) if record.event == "step"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_answers_may_be_limited():
    backbone = backbone_of("t5", "generation")
    run = run_of(backbone, WRITTEN, TARGETS, TARGETS, max_new_tokens=1)
    assert run.data[0].evaluation.max_new_tokens == 1
    short = pairs("w20")
    asked = run_of(backbone, WRITTEN, TARGETS, short, max_new_tokens=2)
    assert asked.data[0].evaluation.longest == 2
    assert asked.data[0].evaluation.max_new_tokens == 2, "not the longest training target, 4, though it is the default"
    assert run_of(backbone, WRITTEN, TARGETS, short).data[0].evaluation.max_new_tokens == 4
