"""A method of your own in 40 lines, outside the package: VeRA (Kopiczko et al. 2024, eq. 2), beside LoRA.

    python examples/custom_method.py

y = W x + diag(b) B diag(d) A x: A and B are drawn from the run's seed and stay as they are, the vectors d and b train.
"""

import tempfile
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

import peft_core
from peft_core.methods import Attached, Method, MethodConfig, WeightUpdate, register
from peft_core.records import Backbone, SiteSelection


class Config(MethodConfig):
    rank: int = Field(64, ge=1, le=8192, description="inner dimension of the random maps")
    learning_rate: float = Field(2e-2, gt=0, le=10, description="peak learning rate of this method")
    sites: SiteSelection | None = Field(None, description="adapted maps; empty: the architecture's default")


class Vera(nn.Module):
    """x (..., in) to diag(b) B diag(d) A x (..., out)."""

    A: Tensor
    B: Tensor

    def __init__(self, outputs: int, inputs: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("A", torch.randn(rank, inputs, generator=generator) / inputs**0.5, persistent=False)
        self.register_buffer("B", torch.randn(outputs, rank, generator=generator) / rank**0.5, persistent=False)
        self.d, self.b = nn.Parameter(torch.full((rank,), 0.1)), nn.Parameter(torch.zeros(outputs))

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.b.unsqueeze(1) * self.B, self.d.unsqueeze(1) * self.A

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.factors()
        return x @ right.T @ left.T


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    attached, made = Attached(backbone, generator.initial_seed()), []
    for site in backbone.sites(config.sites):
        module = Vera(site.out_features, site.in_features, config.rank, generator)
        attached.add_at_site(site, module)
        for role in ("d", "b"):
            attached.add_tensor(site.name, role, None, site.name, in_product=False)
        made.append((site, min(config.rank, site.in_features, site.out_features), module))
    attached.updates = lambda: [
        WeightUpdate(site.name, site.layer, site.role, bound, *module.factors()) for site, bound, module in made
    ]
    return attached


VERA = Method("vera", "VeRA", "low-rank", "Kopiczko et al. 2024, eq. 2", Config, attach, mergeable=True)

if __name__ == "__main__":
    register(VERA)
    methods = ["lora:rank=4", "vera:rank=64"]
    short: dict[str, Any] = {"steps": 30, "batch_size": 16, "eval_every": 15, "train_rows": 480, "eval_rows": 128}
    with tempfile.TemporaryDirectory() as store:
        print(peft_core.compare("tiny-text", "acceptability", methods, seeds=1, folder=store, **short))
