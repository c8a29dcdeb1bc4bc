"""The form: text in, a checked specification or a message at its field out."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from peft_core.cli import build_parser
from peft_core.commands.compare import read_spec
from peft_core.locks import lock_comparison
from peft_core.methods import resolve
from peft_core.records import ComparisonSpec, InputError, MethodSpec, TrainingConfig
from ui.form import Form, FormError, command_line, field_of, fields_of, form_from_spec, spec_from_form


def spec(*methods: str, **values: Any) -> ComparisonSpec:
    return ComparisonSpec(methods=tuple(MethodSpec.parse(text) for text in methods), **values)


SPECS = [
    spec("lora:rank=4", "capaboost_lora:rank=4,d=2,sparsity=0.5", training=TrainingConfig(steps=120)),
    spec("lora:rank=4", "lora:rank=8", "lora:rank=4,use_rslora=true", seeds=(3, 7), data_seed=5, train_rows=500),
    spec("head", task="rank_probe", task_options={"spectrum": "flat", "rank": 16}, training=TrainingConfig(epochs=1.5)),
    spec("lora:alpha=8,sites=qkvo", training=TrainingConfig(learning_rate=1e-3, precision="bf16", selection="best")),
    spec("capaboost_lora:masks=2:4,mask_seed=7", seeds=(2**63 - 1,), eval_rows=10, plan="apart"),
    spec("lora", "head", plan="workers"),
    spec("lora", "head", plan="lockstep"),
]


@pytest.mark.parametrize("given", SPECS, ids=range(len(SPECS)))
def test_a_specification_survives_the_form(given: ComparisonSpec) -> None:
    assert spec_from_form(form_from_spec(given), resolve) == given


def filled(**changes: Any) -> Form:
    values: dict[str, Any] = form_from_spec(SPECS[0]).model_dump()
    return Form.model_validate({**values, **changes})


BAD_TRAINING = [("batch_size", "0"), ("batch_size", "2.5"), ("learning_rate", "0"), ("learning_rate", "-1")]
BAD_TRAINING += [("learning_rate", "nan"), ("learning_rate", "1e400"), ("epochs", "1e9"), ("steps", "0")]
BAD_TRAINING += [("precision", "fp8"), ("nothing", "1")]
BAD_OPTIONS = [("rank", "0"), ("rank", "many"), ("rank", "1,d=3"), ("sparsity", "1"), ("sparsity", "-0.1")]
BAD_OPTIONS += [("sparsity", "1.5"), ("d", "0"), ("masks", "3:2"), ("unknown", "1")]


def second_row(name: str, value: str) -> dict[str, Any]:
    return {"methods": [{"id": "lora"}, {"id": "capaboost_lora", "options": {name: value}}]}


BAD = [
    ({"seeds": "18446744073709551616"}, "seeds"),
    ({"seeds": "1, 1"}, "seeds"),
    ({"seeds": "-1"}, "seeds"),
    ({"seeds": ""}, "seeds"),
    ({"seeds": "²"}, "seeds"),
    ({"model": ""}, "model"),
    ({"methods": []}, "methods"),
    ({"methods": [{"id": "lora"}, {"id": "lora"}]}, "methods"),
    ({"methods": [{"id": "nothing"}]}, "methods.0"),
    ({"methods": [{"id": "../x"}]}, "methods.0"),
    ({"train_rows": "0"}, "train_rows"),
    ({"data_seed": "x"}, "data_seed"),
    *[({"training": {name: value}}, f"training.{name}") for name, value in BAD_TRAINING],
    *[(second_row(name, value), f"methods.1.{name}") for name, value in BAD_OPTIONS],
]


@pytest.mark.parametrize("changes, field", BAD, ids=lambda value: str(value)[:60])
def test_a_bad_value_ends_in_one_sentence_at_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(FormError) as caught:
        spec_from_form(filled(**changes), resolve)
    assert [error.field for error in caught.value.errors] == [field]
    message = caught.value.errors[0].message
    assert message.endswith(".") and "\n" not in message and len(message) < 400


def test_all_messages_come_at_once() -> None:
    with pytest.raises(FormError) as caught:
        spec_from_form(
            filled(seeds="x", methods=[{"id": "lora", "options": {"rank": "0"}}], training={"steps": "0"}), resolve
        )
    assert {error.field for error in caught.value.errors} == {"seeds", "methods.0.rank", "training.steps"}


def test_an_error_of_the_engine_finds_its_row() -> None:
    assert field_of(InputError("capaboost_lora.rank", 500, "too large"), SPECS[0]) == "methods.1.rank"
    assert field_of(InputError("training.batch_size", 0, "too small"), SPECS[0]) == "training.batch_size"


def test_an_empty_field_means_the_default() -> None:
    made = spec_from_form(
        filled(training={"steps": "", "batch_size": " "}, methods=[{"id": "lora", "options": {"rank": ""}}]), resolve
    )
    assert made.training == TrainingConfig()
    assert made.methods == (MethodSpec(id="lora"),)


def test_fields_carry_what_an_input_needs() -> None:
    fields = {field["name"]: field for field in fields_of(TrainingConfig)}
    assert fields["precision"]["choices"] == ["fp32", "bf16"]
    assert (fields["batch_size"]["default"], fields["batch_size"]["min"]) == ("32", 1)
    assert all(field["help"] for field in fields.values())


@pytest.mark.parametrize("given", SPECS, ids=range(len(SPECS)))
def test_the_command_line_runs_the_same_comparison(given: ComparisonSpec) -> None:
    from peft_core.cli import build_parser

    words = shlex.split(command_line(given))
    parsed = build_parser().parse_args(words[3:])
    assert (parsed.model, parsed.task) == (given.model, given.task)
    assert [MethodSpec.parse(text) for text in parsed.method] == list(given.methods)
    assert (parsed.plan or "auto") == given.plan


@pytest.mark.parametrize("name", sorted(set(TrainingConfig.model_fields) - {"steps"}))
def test_every_training_setting_can_be_said_in_the_command_line(name: str) -> None:
    from peft_core.cli import build_parser
    from peft_core.commands.compare import read_spec

    others: dict[str, Any] = {"precision": "bf16", "gradient_checkpointing": True, "device": "cpu", "clip_norm": None}
    value = {**others, "selection": "best", "warmup": 0.3, "rank_tolerance": 0.1}.get(name, 2)
    given = spec("lora", training=TrainingConfig(**{name: value}), task_options={"text": "2024"})
    assert read_spec(build_parser().parse_args(shlex.split(command_line(given))[3:])) == given


def test_the_command_line_of_a_locked_comparison_locks_it_again() -> None:
    locked = lock_comparison(spec("lora:rank=4", "capaboost_lora"), "parameters", "lora:rank=4")
    assert locked.methods[1].options == {"rank": 5}
    arguments = shlex.split(command_line(locked))[3:]
    assert read_spec(build_parser().parse_args(arguments)) == locked
    form = form_from_spec(locked)
    assert ([row.options for row in form.methods], form.lock, form.lock_to) == ([{"rank": "4"}, {}], "parameters", "")
