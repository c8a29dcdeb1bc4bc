"""The engine behind the form: its lists, and when it is loaded."""

from __future__ import annotations

import json
import threading

from peft_core.records import MethodSpec
from tests.ui.stand_in import StandInEngine
from ui.engine import LocalEngine, Warmup


def test_the_lists_are_plain_data_and_fit_together() -> None:
    catalogue = json.loads(json.dumps(LocalEngine().catalogue(), allow_nan=False))
    methods = {method["id"]: method for method in catalogue["methods"]}
    assert {"head", "full", "bitfit", "lora", "capaboost_lora", "adapter_pfeiffer", "capaboost_pfeiffer"} <= set(
        methods
    )
    options = {field["name"]: field for field in methods["capaboost_lora"]["fields"]}
    assert (options["d"]["min"], options["sparsity"]["max"]) == (1, 1)
    assert "tiny-text" in {model["id"] for model in catalogue["models"]}
    assert {"text", "image", "any"} >= {task["modality"] for task in catalogue["tasks"]}
    problems = {model["id"]: set(model["problems"]) for model in catalogue["models"]}
    asked = {task["id"]: task["problem"] for task in catalogue["tasks"]}
    assert problems["tiny-text"] == {"classification", "regression", asked["span_qa"]}
    assert problems["tiny-seq2seq"] == {"classification", "span", asked["translation"]}, "words, but no numbers"
    assert problems["tiny-decoder"] == {"classification", "regression", "span", asked["data_to_text"]}
    assert problems["tiny-vision"] == {"classification", "regression"}


def test_a_budget_is_known_before_a_start() -> None:
    found = LocalEngine().budget("tiny-text", [MethodSpec.parse("lora:rank=4")])[0]
    assert (found["trainable"], found["rank_bound"]) == (8192, 4)


class CountingEngine(StandInEngine):
    def __init__(self) -> None:
        self.prepared = threading.Event()

    def prepare(self) -> None:
        self.prepared.set()


def test_the_engine_is_loaded_after_the_first_page_or_a_while_without_one() -> None:
    asked, patient = CountingEngine(), CountingEngine()
    warmup = Warmup(asked, patience=600)
    warmup.start()
    assert not asked.prepared.wait(0.05)
    warmup.now()
    assert asked.prepared.wait(5)
    Warmup(patient, patience=0.01).start()
    assert patient.prepared.wait(5)
