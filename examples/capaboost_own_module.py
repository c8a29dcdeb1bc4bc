"""CapaBoost on a PyTorch module of your own: any nn.Linear in it, and the loop that you have.

    python examples/capaboost_own_module.py

A network has learned one function; LoRA and CapaBoost move it to another one, whose change of weights has a high rank.
CapaBoost masks one shared pair d times: twice the rank of LoRA's from three quarters of its parameters.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

import peft_core

WIDTH = 32


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))


def fit(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> float:
    """A usual loop; the mean squared error after it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return float(nn.functional.mse_loss(model(x), y))


def main() -> None:
    torch.manual_seed(0)
    x, teacher = torch.randn(512, WIDTH), network()
    start = network()
    print(f"first task:  loss {fit(start, x, teacher(x).detach(), 300):.4f}")
    with torch.no_grad():
        for weight in (weight for weight in teacher.parameters() if weight.dim() == 2):
            weight.add_(0.3 * torch.randn(WIDTH, WIDTH) / WIDTH**0.5)
        y = teacher(x)
    for method in ("lora:rank=4", "capaboost_lora:rank=4,d=2,sparsity=0.5"):
        tuned = peft_core.attach(copy.deepcopy(start), method)
        loss = fit(tuned, x, y, 300)
        rank = max(layer.numerical for layer in tuned.ranks())
        print(f"second task: loss {loss:.4f}, {tuned.trainable} trained parameters, rank {rank}  ({method})")
        answers = tuned.eval()(x)
        plain = tuned.merge()  # a network as it was, with the update in its weights
        assert torch.allclose(plain(x), answers, atol=1e-5)
    print("merged, the network is plain again:", type(plain).__name__, "with", len(list(plain.parameters())), "tensors")


if __name__ == "__main__":
    main()
