"""AdamW over a run's own parameters, and the learning-rate curve."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def rate_factor(step: int, total_steps: int, warmup: float) -> float:
    """Share of the peak rate at a step (from 0): linear up over the warm-up, then linear down to 0 at the end."""
    rising = round(warmup * total_steps)
    if step < rising:
        return (step + 1) / rising
    return (total_steps - step) / (total_steps - rising)


def make_optimizer(parameters: Mapping[str, nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """AdamW (betas 0.9, 0.999; eps 1e-8); vectors (biases, LayerNorms, gates) have no weight decay."""
    decayed = [parameter for parameter in parameters.values() if parameter.dim() > 1]
    plain = [parameter for parameter in parameters.values() if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimizer's state by parameter name, as ``optimizer.<kind>.<name>``."""
    return {
        f"optimizer.{kind}.{name}": value
        for name, parameter in parameters.items()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Puts back what `optimizer_tensors` gave."""
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, kind, name = key.split(".", 2)
            parameter = parameters[name]
            place = value if kind == "step" else value.to(parameter.device)
            optimizer.state[parameter][kind] = place.clone()
