"""Budget locks: every method comes as near to the reference as its size allows, and says what was changed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_core.budget import budget
from peft_core.cli import main
from peft_core.locks import _nearest, figure_of, lock_comparison, locked_methods
from peft_core.methods import list_methods, resolve
from peft_core.records import ComparisonSpec, InputError, MethodSpec

MODEL, REFERENCE = "tiny-text", MethodSpec.parse("lora:rank=8")
IN_BUDGET = {"parameters": "trainable", "flops": "adapter_flops_nominal"}


def specs(*texts: str) -> tuple[MethodSpec, ...]:
    return tuple(MethodSpec.parse(text) for text in texts)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_nearest_size_is_found(data: st.DataObject) -> None:
    step = data.draw(st.sampled_from([1, 2, 4]))
    low, count = 1, data.draw(st.integers(1, 40))
    sizes = [size for size in range(low, low + step * count + 1) if size % step == 0]
    first = data.draw(st.integers(0, len(sizes) - 1))
    last = data.draw(st.integers(first, len(sizes) - 1))
    rises = data.draw(st.lists(st.integers(0, 50), min_size=len(sizes), max_size=len(sizes)))
    figures = {size: float(sum(rises[: place + 1])) for place, size in enumerate(sizes) if first <= place <= last}
    start = data.draw(st.sampled_from(sorted(figures)))
    target = float(data.draw(st.integers(1, 50 * len(sizes))))
    size, found = _nearest(figures.get, start, figures[start], target, low, sizes[-1], step)
    assert figures[size] == found
    assert abs(found - target) == min(abs(figure - target) for figure in figures.values())


@pytest.mark.parametrize("kind", ["parameters", "rank", "flops"])
@pytest.mark.parametrize("method", list_methods(), ids=lambda method: method.id)
def test_every_method_comes_as_near_as_its_neighbours_allow(method, kind: str) -> None:
    model = MODEL if "text" in method.modalities else "tiny-vision"
    asked = MethodSpec(id=method.id)
    (_, moved), record = locked_methods(model, (REFERENCE, asked), kind)
    target = figure_of(model, REFERENCE, kind)
    assert record.changes[1].startswith(f"{asked}") and target is not None
    field = resolve(asked).free
    if field is None:
        assert moved == asked and "stays as it is" in record.changes[1]
        return
    now = figure_of(model, moved, kind)
    if now is None:
        assert moved == asked and "it has no" in record.changes[1]
        return
    size = getattr(resolve(moved), field)
    for near in (size - 1, size + 1):
        try:
            other = figure_of(model, MethodSpec(id=method.id, options={field: near}), kind)
        except InputError:
            continue
        assert other is not None and abs(other - target) >= abs(now - target)


@pytest.mark.parametrize("kind", ["parameters", "flops"])
def test_the_sentence_gives_the_figures_of_the_budget(kind: str) -> None:
    methods, record = locked_methods(MODEL, specs("lora:rank=8", "capaboost_lora:rank=8,d=2"), kind)
    first, second = (entry[IN_BUDGET[kind]] for entry in budget(MODEL, methods))
    assert f"{first:,}" in record.changes[0] and "reference" in record.changes[0]
    assert f"{second:,} of {first:,}" in record.changes[1]
    if kind == "parameters":
        assert methods[1] == MethodSpec.parse("capaboost_lora:rank=11,d=2")
        assert "rank 8 -> 11" in record.changes[1] and f"({100 * (second - first) / first:+.1f} %)" in record.changes[1]
    else:
        assert "rank stays 8" in record.changes[1] and "(equal)" in record.changes[1]


def test_equal_rank_is_that_of_the_whole_update() -> None:
    methods, _ = locked_methods(MODEL, specs("lora:rank=8", "capaboost_lora:d=4", "adapter_pfeiffer"), "rank")
    assert [str(method) for method in methods[1:]] == ["capaboost_lora:d=4,rank=2", "adapter_pfeiffer:bottleneck=8"]
    assert [entry["rank_bound"] for entry in budget(MODEL, methods)] == [8, 8, 8]


def test_patterned_masks_keep_their_multiples() -> None:
    (_, moved), _ = locked_methods(MODEL, specs("lora:rank=8", "capaboost_lora:rank=8,masks=2:4"), "parameters")
    assert moved.options["rank"] == 12


def test_another_reference_can_be_chosen() -> None:
    asked = specs("lora:rank=8", "lora:rank=2", "adapter_pfeiffer:bottleneck=16")
    methods, record = locked_methods(MODEL, asked[::2], "flops", "adapter_pfeiffer:bottleneck=16")
    assert (record.to, methods[1]) == ("adapter_pfeiffer:bottleneck=16", asked[2])
    with pytest.raises(InputError, match="become the same method"):
        lock_comparison(ComparisonSpec(methods=asked), "parameters", "lora:rank=2")


@pytest.mark.parametrize(
    ("methods", "kind", "to", "field"),
    [
        (("lora",), "weights", None, "lock"),
        (("lora",), "rank", "bitfit", "lock_to"),
        (("head", "lora"), "parameters", None, "lock_to"),
        (("bitfit", "lora"), "rank", None, "lock_to"),
        (("lora:rank=0",), "rank", None, "lora.rank"),
    ],
)
def test_what_cannot_be_locked_is_named(methods: tuple[str, ...], kind: str, to: str | None, field: str) -> None:
    with pytest.raises(InputError) as error:
        locked_methods(MODEL, specs(*methods), kind, to)
    assert error.value.field == field


def test_a_comparison_keeps_what_was_asked() -> None:
    asked = ComparisonSpec(methods=specs("lora:rank=8", "capaboost_lora"))
    locked = lock_comparison(asked, "parameters")
    assert locked.lock is not None and locked.lock.asked == asked.methods
    assert locked.methods[1].options == {"rank": 11}
    assert ComparisonSpec.model_validate_json(locked.model_dump_json()) == locked


def test_budget_prints_what_a_lock_changed(capsys) -> None:
    command = ["budget", "--model", MODEL, "--method", "lora:rank=8", "--method", "capaboost_lora", "--json"]
    assert main([*command, "--lock", "parameters"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (second["method"], second["asked"]) == ("capaboost_lora:rank=11", "capaboost_lora")
    assert "rank 8 -> 11" in second["lock"] and "reference" in first["lock"]
    assert main([*command, "--lock-to", "lora:rank=8"]) == 2
    assert "it needs a lock" in capsys.readouterr().err


@pytest.mark.parametrize("method", list_methods(), ids=lambda method: method.id)
def test_a_method_with_a_size_says_which_option_it_is(method) -> None:
    sizes = {"rank", "bottleneck", "length", "target_rank"} & method.Config.model_fields.keys()
    assert method.Config.free in sizes if sizes else method.Config.free is None
