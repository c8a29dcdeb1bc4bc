"""AdaLoRA: y = W x + (alpha / r_0) B diag(lambda) A x; a falling budget of directions, the least important zeroed.

Zhang et al. 2023, "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", as its code has it.
A, B ~ N(0, 0.02^2), lambda = 0. The loss gains gamma times the mean over all A and B of ||A A^T - I||_F,
||B^T B - I||_F: not squared, over all r_0 directions (the paper, as recalled: squared, summed).
After each step (parameters already moved, gradients clipped and penalty included, as in the code; `pre_step` takes the
values that the gradients belong to) sensitivities are updated while t < T - t_f. The budget is r_0 M up to t_i, then
b_T + (b_0 - b_T)(1 - (t - t_i) / (T - t_f - t_i))^3, and its target after T - t_f. Every `interval` steps, and at every
step of the last phase, the lambdas of the lowest scores are zeroed; a score is I U of lambda plus the means over A's
row and B's column. Between these steps zeroed lambdas move again. The papers' absolute t_i, t_f and interval fit here
too; by default they are 0.1 T, 0.3 T and T / 100.
The code's scale never follows the rank: it stays alpha / r_0, which the code writes alpha / (r_0 + 1e-5); the 1e-5 is
left out. In its GLUE code on DeBERTa the query's update leaves out the relative positions and the key's does not; here
both reach them, so that merging is exact (`bypass_positions` does as that code).
What trains is r_0 (in + out + 1) a map; stored are the directions that live, r_k (in + out + 1) in the mean.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from peft_core.methods._contract import Attached, LowRankConfig, Method, MethodConfig
from peft_core.methods._importance import Importance, below_threshold
from peft_core.methods._low_rank import Start, attach_low_rank
from peft_core.methods._masks import BoostConfig
from peft_core.methods._modules import LowRank
from peft_core.methods._orthogonality import unsquared_penalty
from peft_core.records import Backbone, InputError, SiteSelection


class Config(MethodConfig):
    """Options of AdaLoRA."""

    free: ClassVar[str | None] = "target_rank"
    anew: ClassVar[tuple[str, ...]] = (*MethodConfig.anew, "warmup", "final", "interval")
    learning_rate: float = Field(9e-3, gt=0, le=10, description="peak learning rate of this method")
    target_rank: int = Field(8, ge=1, le=8192, description="average rank of a map at the end")
    initial_rank: int | None = Field(None, ge=1, le=8192, description="rank at the start; empty: 1.5 times the target")
    alpha: float | None = Field(None, gt=0, le=1e6, description="scale is alpha / initial_rank; empty: scale 1")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the module's input, one draw a branch")
    sites: SiteSelection | None = Field("six", description="adapted maps; empty: the architecture's default")
    bypass_positions: bool = Field(
        False, description="DeBERTa: the query's update leaves out the relative positions, as the authors' GLUE code"
    )
    warmup: float = Field(0.1, ge=0, le=1e6, description="t_i: steps at full budget; below 1 a share of all steps")
    final: float = Field(0.3, ge=0, le=1e6, description="t_f: last steps at the target; below 1 a share of all steps")
    interval: int | None = Field(None, ge=1, le=1_000_000, description="steps between prunings; empty: a hundredth")
    orthogonality: float = Field(0.1, ge=0, le=100, description="gamma: coefficient of the penalty")
    pre_step: bool = Field(False, description="score with the values before the step; false: after it, as the code")
    beta1: float = Field(0.85, ge=0, lt=1, description="smoothing of the sensitivity")
    beta2: float = Field(0.85, ge=0, lt=1, description="smoothing of its uncertainty")
    boost: BoostConfig | None = Field(None, description="CapaBoost over this method; empty: none")

    @model_validator(mode="after")
    def _falls(self) -> Config:
        if self.initial < self.target_rank:
            raise InputError("initial_rank", self.initial_rank, f"it must be at least target_rank ({self.target_rank})")
        return self

    @property
    def initial(self) -> int:
        """r_0."""
        return self.initial_rank if self.initial_rank is not None else math.ceil(1.5 * self.target_rank)


class Schedule:
    """The budget over the steps of a run (AdaLoRA, eq. 12), and when it is applied.

    Raises:
        InputError: no step is left between the first and the last phase.
    """

    def __init__(self, config: Config, total_steps: int, start: int, target: int) -> None:
        self.first = _steps(config.warmup, total_steps)
        self.last = total_steps - _steps(config.final, total_steps)
        self.interval = config.interval or max(1, total_steps // 100)
        self.start, self.target = start, target
        if self.first >= self.last:
            raise InputError("warmup", config.warmup, f"with final {config.final:g} it leaves no step of {total_steps}")

    def budget(self, step: int) -> int:
        """Directions that may live at a step, counted from 0, over all maps."""
        if step <= self.first:
            return self.start
        if step > self.last:
            return self.target
        left = 1 - (step - self.first) / (self.last - self.first)
        return int(self.target + (self.start - self.target) * left**3)

    def prunes(self, step: int) -> bool:
        """Whether the budget is applied at a step."""
        return step > self.last or (step > self.first and step % self.interval == 0)


def _steps(value: float, total: int) -> int:
    return int(value * total) if value < 1 else int(value)


class Allocator:
    """Scores all directions and zeroes the least important ones. The scores' state is in buffers of the modules."""

    def __init__(self, modules: list[LowRank], config: Config) -> None:
        self.config, self.modules = config, modules
        self.gates = [module.gate for module in modules if module.gate is not None]
        self.importances = []
        self.schedule: Schedule | None = None
        for module in modules:
            shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
            self.importances.append(Importance(shapes, config.beta1, config.beta2).to(module.A.device))
            module.add_module("importance", self.importances[-1])

    def start(self, total_steps: int) -> None:
        count = len(self.modules)
        self.schedule = Schedule(self.config, total_steps, self.config.initial * count, self.config.target_rank * count)

    @torch.no_grad()
    def score(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Takes in |p g| of every value, until the last phase."""
        assert self.schedule is not None
        if step >= self.schedule.last:
            return
        for module, importance in zip(self.modules, self.importances, strict=True):
            for name, parameter in module.named_parameters():
                if parameter.grad is not None:
                    importance.update(name, (parameter * parameter.grad).abs())

    @torch.no_grad()
    def prune(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Zeroes the lambdas of the lowest scores, in steps that do."""
        assert self.schedule is not None
        if self.schedule.prunes(step):
            drop = self.schedule.start - self.schedule.budget(step)
            scores = [direction_scores(importance) for importance in self.importances]
            for gate, dropped in zip(self.gates, below_threshold(scores, drop), strict=True):
                gate.masked_fill_(dropped, 0.0)


def direction_scores(importance: Importance) -> Tensor:
    """(r_0,): I U of lambda, plus the mean over A's row, plus the mean over B's column."""
    return importance.score("gate") + importance.score("A").mean(1) + importance.score("B").mean(0)


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A triple at every site, and the allocator over all of them."""
    pairs = LowRankConfig(
        learning_rate=config.learning_rate,
        rank=config.initial,
        alpha=config.alpha,
        dropout=config.dropout,
        sites=config.sites,
    )
    try:
        start = Start(a_std=0.02, b_std=0.02, gate_std=0.0)
        attached = attach_low_rank(backbone, pairs, generator, config.boost, start, config.target_rank)
    except InputError as error:
        raise InputError("initial_rank" if error.field == "rank" else error.field, error.value, error.allowed) from None
    if config.bypass_positions:
        attached.positions.left_out.add("q")
    modules = [module for module in attached.modules.values() if isinstance(module, LowRank)]
    allocator = Allocator(modules, config)
    attached.on_start.append(allocator.start)
    (attached.before_update if config.pre_step else attached.after_step).append(allocator.score)
    attached.after_step.append(allocator.prune)
    attached.count_active = lambda: sum(module.active_parameters() for module in modules)
    attached.penalty = lambda: config.orthogonality * unsquared_penalty([(pair.A, pair.B) for pair in modules])
    return attached


METHOD = Method(
    id="adalora",
    title="AdaLoRA",
    family="low-rank",
    source="Zhang et al. 2023",
    Config=Config,
    attach=attach,
    boosts=True,
    mergeable=True,
)
