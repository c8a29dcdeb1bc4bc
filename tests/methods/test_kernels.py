"""Kernels equal their plain twins, are compiled for the device they are for, and are chosen by measuring."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.flop_counter import FlopCounterMode

from peft_core.methods import _kernels, get_method, resolve
from peft_core.methods._choice import Fastest
from peft_core.methods._kernels import (
    branch_keys,
    fastest_products,
    fastest_sum,
    keys_of,
    masked_product_twin,
    masks_of_keys,
    triton_installed,
)
from peft_core.methods._masks import BoostConfig, MaskedCopies, Plain
from peft_core.records import MethodSpec
from tests.conftest import miniature

needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")


def run_apart(code: list[str], **settings: str) -> None:
    done = subprocess.run(
        [sys.executable, *code], env={**os.environ, **settings}, cwd=Path(__file__).parents[2],
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@needs_triton
def test_the_interpreted_kernels_equal_their_twins():
    run_apart(["-m", "tests.methods.kernel_checks", "cpu"], TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_kernels_equal_their_twins_on_the_device():
    run_apart(["-m", "tests.methods.kernel_checks", "cuda"])


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from peft_core.methods import _kernels_triton as kernels

def compiled(kernel, pointers, fixed):
    names = kernel.arg_names
    kinds = {name: "constexpr" if name in fixed else pointers.get(name, "i32") for name in names}
    source = ASTSource(kernel, kinds, {(names.index(name),): value for name, value in fixed.items()})
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]

for dtype, precision in (("*bf16", "ieee"), ("*fp32", "tf32")):
    shared = {"shared": "*fp32", "keys": "*i64", "parts": "*fp32"}
    block = {"precision": precision, "block_t": 32}
    for lines_out in (True, False):
        fixed = block | {"block_n": 32, "block_k": 32, "lines_out": lines_out}
        compiled(kernels._product, shared | {"x": dtype, "y": dtype}, fixed)
    fixed = block | {"block_j": 16, "block_o": 32, "split": 64, "copies": 2}
    compiled(kernels._gradient, shared | {"lines": dtype, "others": dtype}, fixed)
    for kernel in (kernels._drawn, kernels._summed):
        pointers = {"shared": "*fp32", "keys": "*i64", "stacked": dtype, "gradient": dtype, "total": "*fp32"}
        compiled(kernel, pointers | {"scale": "fp32"}, {"block": 256})
    pointers = {"left": "*fp32", "right": "*fp32", "delta": dtype, "x": dtype, "parts": "*fp32"}
    compiled(kernels._sensitivity, pointers, block | {"block_o": 32, "block_i": 32, "block_r": 16})
"""


@needs_triton
def test_the_kernels_compile_for_a_device_that_is_not_here(tmp_path):
    run_apart(["-c", COMPILE], TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_keys_stand_for_the_method_s_masks(sparsity):
    transform = MaskedCopies((12, 20), BoostConfig(d=3, sparsity=sparsity), "layer.0.q", "A", seed=5)
    keys = keys_of(transform)
    assert keys.shape == (3, 2) and torch.equal(masks_of_keys(keys, torch.Size((12, 20))), transform.masks)


def test_other_masks_have_no_keys():
    shape = (4, 8)
    for masks in ("2:4", "same", "dropout"):
        assert keys_of(MaskedCopies(shape, BoostConfig(masks=masks), "site", "A", 0)) is None
    assert keys_of(Plain(shape)) is None and branch_keys((1, 3), 0.9, [1]) is None


def test_the_twin_is_what_the_module_computes():
    config = resolve(MethodSpec.parse("capaboost_lora:rank=4,d=3,sparsity=0.5"))
    attached = get_method("capaboost_lora").attach(miniature("roberta"), config, torch.Generator().manual_seed(1))
    module = attached.modules["layer.0.q"]
    torch.nn.init.normal_(module.B, generator=torch.Generator().manual_seed(2))
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))
    hidden = masked_product_twin(x, module.A, keys_of(module.mask_A), "right")
    torch.testing.assert_close(
        masked_product_twin(hidden, module.B, keys_of(module.mask_B), "left") * module.scale, module(x)
    )


def test_without_a_device_the_usual_way_is_taken():
    keys = branch_keys((4, 8), 0.5, [1, 2])
    a, b, x = torch.ones(4, 8), torch.ones(8, 4), torch.ones(3, 8)
    usual = lambda x, a, b: F.linear(F.linear(x, a), b)  # noqa: E731
    answer = fastest_products(x, a, b, (keys, keys), usual, scale=torch.nan)
    assert torch.equal(answer, torch.full((3, 8), 32.0))
    assert float(fastest_sum(b, a, [(x, x)], lambda left, right, uses: left.sum() + len(uses))) == 33


@pytest.fixture
def on_a_device(monkeypatch):
    """As if there were a device on which kernels win; a kernel leaves its name."""
    taken = []

    def kernels(x, a, b, keys_a, keys_b, gate=None):
        taken.append("kernel")
        hidden = masked_product_twin(x, a, keys_a, "right")
        return masked_product_twin(hidden if gate is None else hidden * gate.repeat(len(keys_a)), b, keys_b, "left")

    monkeypatch.setattr(_kernels, "_may_choose", lambda x: not is_in_torch_dispatch_mode())
    monkeypatch.setattr(_kernels, "masked_products", kernels)
    monkeypatch.setattr(_kernels, "drawn_products", lambda x, a, b, *rest: x @ a.T @ b.T)
    monkeypatch.setattr(_kernels, "fastest", Fastest(lambda work: -len(taken) if work() else 0))
    return taken


def device_products(x, module, usual):
    keys = module._keys_on(x.device)
    return fastest_products(x, module.A, module.B, keys, usual, module.scale, module.gate)


@pytest.mark.parametrize("method", ["capaboost_lora:rank=4,d=3", "sora:rank=4,boost.d=2"])
def test_where_a_kernel_wins_it_computes_what_the_module_does(on_a_device, method):
    spec = MethodSpec.parse(method)
    attached = get_method(spec.id).attach(miniature("roberta"), resolve(spec), torch.Generator().manual_seed(1))
    module = attached.modules["layer.0.q"]
    torch.nn.init.normal_(module.B, generator=torch.Generator().manual_seed(2))
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))
    usual = lambda x, a, b: module(x) if a is module.A else F.linear(F.linear(x, a), b)  # noqa: E731
    answer = device_products(x, module, usual)
    measured = len(on_a_device)
    assert measured and list(_kernels.fastest.choices().values()) == ["inside"]
    torch.testing.assert_close(answer, module(x))
    gradients = torch.autograd.grad(answer.square().sum(), module.A)
    expected = torch.autograd.grad(module(x).square().sum(), module.A)
    torch.testing.assert_close(gradients, expected, rtol=1e-5, atol=1e-4)
    device_products(x, module, usual)
    assert len(on_a_device) == measured + 1
    with torch.no_grad():
        device_products(x, module, usual)
    with FlopCounterMode(display=False) as counter:
        device_products(x, module, usual)
    assert len(on_a_device) == measured + 1 and counter.get_total_flops() > 0


class TestChoice:
    """`Fastest` on candidates whose times are given."""

    def times(self, **seconds):
        asked = []

        def measure(work):
            asked.append(work)
            return seconds[work()]

        return Fastest(measure), {name: (lambda name=name: name) for name in seconds}, asked

    def test_the_fastest_is_picked_once_for_a_key(self):
        choice, candidates, asked = self.times(kernel=1.0, twin=2.0)
        assert choice.pick("a", candidates) == choice.pick("a", candidates) == "kernel"
        assert len(asked) == 2 and choice.pick("b", candidates) == "kernel" and len(asked) == 4

    def test_the_plain_way_wins_where_it_is_no_slower(self):
        choice, candidates, _ = self.times(kernel=2.0, twin=2.0)
        assert choice.pick("a", candidates) == "twin"

    def test_a_kernel_that_does_not_run_leaves_the_plain_way(self, caplog):
        choice, candidates, _ = self.times(kernel=1.0, twin=2.0)

        def broken():
            raise RuntimeError("no such instruction")

        with caplog.at_level(logging.WARNING):
            assert choice.pick("a", {**candidates, "kernel": broken}) == "twin"
        assert "kernel does not run here" in caplog.text

    def test_recorded_choices_are_taken_over(self):
        choice, candidates, asked = self.times(kernel=1.0, twin=2.0)
        choice.take_over({"a": "twin"})
        assert choice.pick("a", candidates) == "twin" and not asked and choice.choices() == {"a": "twin"}
