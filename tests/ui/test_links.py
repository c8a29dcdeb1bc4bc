"""Links that restore a form, and comparisons to start from: what they say is checked, moved or left out."""

from __future__ import annotations

import shlex
from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peft_core.cli import build_parser
from tests.ui.stand_in import StandInEngine
from ui.engine import LocalEngine
from ui.form import Form, form_command, lock_reference, spec_from_form
from ui.links import LONGEST_QUERY, MOST_NOTES, form_of, query_of
from ui.presets import presets

CATALOGUE = StandInEngine().catalogue()
GROUPS = {"To begin with", "CapaBoost", "ProPETL", "IncreLoRA", "RM-LoRA"}


def read(query: str) -> tuple[Form | None, list[str]]:
    return form_of(parse_qsl(query, keep_blank_values=True), CATALOGUE)


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine()


def test_a_form_comes_out_of_its_own_link() -> None:
    form = Form(
        model="owner/name@v1",
        task="rank_probe",
        task_options={"rank": "16"},
        methods=[{"id": "lora", "options": {"rank": "4"}}, {"id": "capaboost_lora", "options": {"sparsity": "0.25"}}],
        seeds="3, 9223372036854775807",
        data_seed="7",
        train_rows="100",
        lock="parameters",
        lock_to="1",
        training={"steps": "12", "device": "cpu"},
    )
    again, notes = read(query_of(form))
    assert notes == []
    assert query_of(again) == query_of(form) and again.seeds == form.seeds and again.lock_to == "1"
    assert again.methods == form.methods and again.training == form.training


@pytest.mark.parametrize(
    "query, field, kept, said",
    [
        ("methods.0=lora&methods.0.rank=99999", lambda form: form.methods[0].options, {"rank": "8192"}, "now 8192"),
        ("methods.0=lora&methods.0.rank=-3", lambda form: form.methods[0].options, {"rank": "1"}, "now 1"),
        ("methods.0=lora&methods.0.rank=many", lambda form: form.methods[0].options, {}, "must be a number"),
        ("methods.0=lora&methods.0.alpha=nan", lambda form: form.methods[0].options, {}, "must be a number"),
        ("methods.0=capaboost_lora&methods.0.sparsity=1", lambda form: form.methods[0].options, {}, "not reach 1"),
        ("methods.0=lora&methods.0.x=1", lambda form: form.methods[0].options, {}, "no such option"),
        ("methods.0=nothing", lambda form: form.methods, [], "no such method"),
        ("training.device=gpu", lambda form: form.training, {}, "one of auto, cpu, cuda"),
        ("training.gradient_checkpointing=1", lambda form: form.training, {}, "one of true, false"),
        ("training.batch_size=1e9", lambda form: form.training, {}, "must be a number"),
        ("plan=fast", lambda form: form.plan, None, "one of auto"),
        ("seeds=1,x,1,-2", lambda form: form.seeds, "1", "different whole numbers"),
        ("lock=weight", lambda form: form.lock, "", "one of parameters"),
        ("methods.0=lora&lock=rank&lock_to=7", lambda form: form.lock_to, "", "no such row"),
        ("task=rank_probe&task_options.rank=<b>", lambda form: form.task_options, {"rank": "<b>"}, ""),
    ],
)
def test_each_value_is_checked_and_moved_or_left_out(query: str, field, kept: object, said: str) -> None:
    form, notes = read(query)
    assert field(form) == kept
    assert said in " ".join(notes) and len(notes) == bool(said)


def test_rows_keep_their_order_and_the_lock_its_row() -> None:
    form, _ = read("methods.9=lora&methods.2=nothing&methods.3=capaboost_lora&lock=rank&lock_to=9")
    assert [row.id for row in form.methods] == ["capaboost_lora", "lora"] and form.lock_to == "1"


def test_what_is_no_field_is_no_form() -> None:
    assert read("__theme=dark&utm_source=x&methods=3x&methods.100=lora&training=&__proto__=1") == (None, [])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "model",
                    "task",
                    "seeds",
                    "lock",
                    "lock_to",
                    "data_seed",
                    "plan",
                    "methods.0",
                    "methods.0.rank",
                    "methods.63.d",
                    "methods.1",
                    "training.steps",
                    "training.warmup",
                    "task_options.x",
                ]
            ),
            st.one_of(st.text(max_size=40), st.sampled_from(["lora", "rank", "1e999", "-1", "٣", "0x1", "9" * 900])),
        ),
        max_size=12,
    )
)
@example([("training.steps", "9" * 900), ("data_seed", "-" + "9" * 390)])
@settings(max_examples=150, deadline=None)
def test_no_query_string_breaks_it(pairs: list[tuple[str, str]]) -> None:
    form, notes = form_of(pairs, CATALOGUE)
    assert len(notes) <= MOST_NOTES + 1 and all(note.endswith(".") and len(note) < 400 for note in notes)
    if form:
        assert len(form.seeds) < 2500
        again, said = form_of(parse_qsl(query_of(form), keep_blank_values=True), CATALOGUE)
        assert said == [] and query_of(again) == query_of(form), "a link of what was read reads the same"


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset["name"])
def test_every_comparison_to_start_from_can_be_started_linked_and_typed(preset: dict, engine: LocalEngine) -> None:
    form = Form(**preset["form"])
    spec = spec_from_form(form, engine.resolve)
    engine.check(spec)
    if form.lock:
        engine.lock(spec, form.lock, lock_reference(form, spec.methods))
    query = query_of(form)
    again, notes = form_of(parse_qsl(query), engine.catalogue())
    assert notes == [] and query_of(again) == query and again.task == form.task and len(query) < LONGEST_QUERY
    asked = build_parser().parse_args(shlex.split(form_command(form, spec))[3:])
    assert [str(method) for method in asked.method] == [str(method) for method in spec.methods]
    assert (asked.lock or "") == form.lock


def test_the_first_four_and_every_paper_are_there() -> None:
    titles = [preset["title"] for preset in presets()]
    assert titles[:4] == [
        "Rank boosting in a minute",
        "Equal parameters",
        "Equal rank",
        "Is it just regularisation?",
    ]
    assert {preset["group"].partition(" (")[0] for preset in presets()} == GROUPS
    assert len({preset["name"] for preset in presets()}) == len(titles)
