"""The method that CONTRIBUTING.md writes is discovered and trains."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import torch

from peft_core.backbones import initial_head
from peft_core.methods import discover
from tests.conftest import miniature
from tests.methods.test_contract import take_steps

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_example_method_is_discovered_and_trains(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    package = tmp_path / "example_methods"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "shift.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        method = discover(importlib.import_module("example_methods"))["shift"]
        backbone = miniature("roberta")
        attached = method.attach(backbone, method.Config(), torch.Generator().manual_seed(0))
        attached.train_head(initial_head(backbone, 0))
        losses = take_steps(attached, 20, rate=1e-2)
        assert losses[-1] < losses[0]
        assert attached.active_parameters() == 2 * 2 * 32
        assert any(parameter.ne(0).any() for name, parameter in attached.trainable().items() if name.endswith(".s"))
    finally:
        for name in [name for name in sys.modules if name.startswith("example_methods")]:
            del sys.modules[name]
