"""One model for every problem: its head, its outputs, and answers written token by token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers

from peft_core.backbones import initial_head, load_backbone, meta_backbone
from peft_core.backbones._backbone import TransformerBackbone
from peft_core.methods import get_method, resolve
from peft_core.records import InputError, MethodSpec
from tests.conftest import miniature

DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma")
WRITERS = (*DECODERS, "t5", "mt5", "bart")
METHODS = (None, "lora:rank=4,sites=six", "prefix:length=3,reparametrize=false", "adapter_pfeiffer:bottleneck=4")
END = 3


def backbone_for(name: str, problem: str) -> TransformerBackbone:
    """A random model with weights large enough for its answers to differ."""
    backbone = miniature(name, outputs=2, problem=problem)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    set_end(backbone, END)
    return backbone


def set_end(backbone: TransformerBackbone, token: int) -> None:
    backbone.config.eos_token_id = token
    if backbone.problem == "generation":
        backbone.model.generation_config.eos_token_id = token


def prompts(backbone: TransformerBackbone) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(5, 60, (length,), generator=generator).tolist() for length in (7, 3, 5, 1)]


def batch_of(backbone: TransformerBackbone, rows: list[list[int]], left: bool = False, extra: int = 0):
    width, pad = max(map(len, rows)) + extra, backbone.config.pad_token_id or 0
    ids, mask = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.long)
    for at, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(len(row))
        ids[at, place], mask[at, place] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


def attach(backbone: TransformerBackbone, method: str):
    """An attachment with random values everywhere, so that it changes what is written."""
    spec = MethodSpec.parse(method)
    attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in attached.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    attached.train(False)
    return attached


@torch.no_grad()
def plain_greedy(backbone: TransformerBackbone, prompt: list[int], count: int) -> list[int]:
    """One row without padding and without a cache: the whole text again for every token."""
    source, written = torch.tensor([prompt]), []
    for _ in range(count):
        if backbone.encoder_decoder:
            target = torch.tensor([[backbone.decoder_start_token, *written]])
            logits = backbone.logits({"input_ids": source, "decoder_input_ids": target})
        else:
            logits = backbone.logits({"input_ids": torch.tensor([prompt + written])})
        token = int(logits[0, -1].argmax())
        if token == backbone.config.eos_token_id:
            break
        written.append(token)
    return written


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", WRITERS)
def test_answers_are_those_of_a_plain_greedy_loop_wherever_the_padding_is(family, method):
    backbone = backbone_for(family, "generation")
    rows = prompts(backbone)
    bare = backbone.generate(batch_of(backbone, rows), 8)
    if method is None:
        assert bare == [plain_greedy(backbone, row, 8) for row in rows]
        return
    attached = attach(backbone, method)
    with attached.active():
        expected = [plain_greedy(backbone, row, 8) for row in rows]
        assert expected != bare, "the method must make a difference"
        for left, extra in ((False, 0), (True, 0), (False, 3), (True, 2)):
            assert backbone.generate(batch_of(backbone, rows, left, extra), 8) == expected
    assert backbone.generate(batch_of(backbone, rows), 8) == bare


@torch.no_grad()
@pytest.mark.parametrize("family", WRITERS)
def test_an_answer_ends_at_the_end_token_and_is_cut_there(family):
    backbone = backbone_for(family, "generation")
    batch = batch_of(backbone, prompts(backbone))
    whole = backbone.generate(batch, 8)
    end = next(row for row in whole if len(row) > 2)[2]
    set_end(backbone, end)
    cut = [row[: row.index(end)] if end in row else row for row in whole]
    assert cut != whole and backbone.generate(batch, 8) == cut


@torch.no_grad()
@pytest.mark.parametrize("family", WRITERS)
def test_a_models_own_settings_do_not_change_its_answers(family):
    backbone = backbone_for(family, "generation")
    batch = batch_of(backbone, prompts(backbone))
    expected = backbone.generate(batch, 6)
    own = transformers.GenerationConfig(do_sample=True, temperature=5.0, forced_eos_token_id=7, repetition_penalty=9.0)
    backbone.model.generation_config = own
    assert backbone.generate(batch, 6) == expected == backbone.generate(batch, 6)
    assert backbone.model.generation_config is own


def test_positions_are_told_before_they_run_out():
    backbone = backbone_for("gpt2", "generation")
    batch = batch_of(backbone, prompts(backbone))
    assert max(map(len, backbone.generate(batch, 33))) <= 33
    with pytest.raises(InputError, match="40 positions, of which the longest prompt takes 7"):
        backbone.generate(batch, 34)
    with pytest.raises(InputError, match="loaded for generation"):
        backbone_for("gpt2", "classification").generate(batch, 3)


@torch.no_grad()
@pytest.mark.parametrize("family", ["roberta", "bert", "deberta_v2", "gpt2", "t5", "mt5", "bart"])
def test_spans_are_scored_at_every_token(family):
    backbone = backbone_for(family, "span")
    head = {name: backbone.model.get_parameter(name) for name in backbone.head_parameters()}
    assert {name: tuple(value.shape) for name, value in head.items()} == {
        "qa_outputs.weight": (2, 32),
        "qa_outputs.bias": (2,),
    }
    rows = prompts(backbone)
    batch = batch_of(backbone, rows)
    logits = backbone.logits(batch)
    answer = backbone.model(**batch)
    assert logits.shape == (4, 7, 2)
    assert torch.equal(logits[..., 0], answer.start_logits) and torch.equal(logits[..., 1], answer.end_logits)
    for at, row in enumerate(rows):
        alone = backbone.logits(batch_of(backbone, [row]))
        torch.testing.assert_close(logits[at : at + 1, : len(row)], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", WRITERS)
def test_the_next_token_is_scored_at_every_position_and_nothing_of_the_head_trains(family):
    backbone = backbone_for(family, "generation")
    batch = batch_of(backbone, prompts(backbone))
    if backbone.encoder_decoder:
        batch["decoder_input_ids"] = torch.tensor([[0, 5, 6]]).expand(4, -1)
    assert backbone.logits(batch).shape == (4, 3 if backbone.encoder_decoder else 7, 60)
    assert backbone.head_parameters() == () and initial_head(backbone, 0) == {}
    if not backbone.encoder_decoder:
        features = backbone.features(batch)
        written = backbone.logits(batch)[torch.arange(4), batch["attention_mask"].sum(1) - 1]
        torch.testing.assert_close(backbone.model.lm_head(features), written)


@pytest.mark.parametrize(
    ("model", "problems"),
    [
        ("roberta-base", ("classification", "regression", "span")),
        ("deberta-v3-base", ("classification", "regression", "span")),
        ("vit-b16", ("classification", "regression")),
        ("gpt2", ("classification", "regression", "span", "generation")),
        ("t5-base", ("classification", "regression", "span", "generation")),
    ],
)
def test_the_body_is_the_same_for_every_problem_and_the_rest_is_refused(model, problems):
    first = meta_backbone(model)
    for problem in ("span", "generation"):
        if problem not in problems:
            with pytest.raises(InputError, match=f"cannot do {problem}, only {', '.join(problems)}[.]$") as refused:
                meta_backbone(model, problem=problem)
            assert refused.value.field == "model"
            continue
        backbone = meta_backbone(model, problem=problem)
        assert backbone.problem == problem
        assert backbone.parameter_count() == first.parameter_count()
        for selection in ("six", "all-linear"):
            assert backbone.sites(selection) == first.sites(selection)
        for kind in ("pfeiffer", "houlsby"):
            assert backbone.adapter_places(kind) == first.adapter_places(kind)
        assert backbone.prefix_places() == first.prefix_places()
        head = sum(backbone.model.get_parameter(name).numel() for name in backbone.head_parameters())
        assert head == (2 * backbone.hidden_size + 2 if problem == "span" else 0)


def test_only_an_encoder_decoder_has_a_start_token():
    assert meta_backbone("t5-base").encoder_decoder and meta_backbone("t5-base").decoder_start_token == 0
    with pytest.raises(InputError, match="no encoder-decoder"):
        assert meta_backbone("gpt2").decoder_start_token


def test_a_folder_serves_every_problem_it_can(roberta_folder: Path):
    backbone = load_backbone(str(roberta_folder), problem="span")
    expected = initial_head(backbone, 0)
    assert set(expected) == {"qa_outputs.weight", "qa_outputs.bias"}
    assert all(torch.equal(backbone.model.get_parameter(name), value) for name, value in expected.items())
    same = load_backbone(str(roberta_folder), outputs=3, problem="classification")
    for name in backbone.body_parameters():
        assert torch.equal(backbone.model.get_parameter(name), same.model.get_parameter(name))
    with pytest.raises(InputError, match="cannot do generation"):
        load_backbone(str(roberta_folder), problem="generation")


def test_a_loaded_decoder_learns_a_text_by_heart_and_writes_it(tmp_path: Path):
    backbone_for("gpt2", "generation").model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    backbone = load_backbone(str(tmp_path), problem="generation")
    assert backbone.end_tokens == (3,)
    text = torch.tensor([[5, 9, 6, 12, 8, 30, 3]])
    attached = attach(backbone, "lora:rank=16,sites=six")
    optimizer = torch.optim.AdamW(attached.trainable().values(), lr=1e-2)
    for _ in range(150):
        with attached.active():
            loss = F.cross_entropy(backbone.logits({"input_ids": text[:, :-1]})[0, 1:], text[0, 2:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with attached.active():
        assert backbone.generate({"input_ids": text[:, :2]}, 12) == [[6, 12, 8, 30]]


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<s>", "<unk>", "</s>", *(f"w{number}" for number in range(56))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(folder)
