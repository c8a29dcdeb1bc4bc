"""Find a hidden weight update: regression on what the backbone computes once a secret ΔW is added to it.

At every query and value projection the teacher computes y = (W + ΔW) x + b with ΔW = s ||W||_F U diag(σ) Vᵀ, where U
and V are random orthonormal and ||σ|| = 1. The spectrum σ is an option, so that one can see what an update of a given
rank can and cannot follow. The targets are a fixed random projection of the teacher's first token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from peft_core.records import Backbone, InputError, Site
from peft_core.tasks._contract import Rows, Split, TaskInfo
from peft_core.tasks._corpus import passages
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, check_count, check_options, split_of
from peft_core.tasks.shape_orientation import STREAM as DRAWINGS

if TYPE_CHECKING:
    import torch

OUTPUTS = 8
SPECTRA = ("flat", "decaying", "gaussian")
MOST_RANK = 64
MOST_STRENGTH = 10.0


def spectrum_of(kind: str, rank: int, size: int) -> torch.Tensor:
    """Singular values (size,) of norm 1: `rank` equal ones, or an exponential decay over `rank` of them."""
    import torch

    places = torch.arange(size, dtype=torch.float64)
    values = (places < rank).double() if kind == "flat" else torch.exp(-places / rank)
    return values / values.norm()


def generator_for(seed: int, what: str) -> torch.Generator:
    """Random numbers that depend on the seed and a name, and on nothing drawn before."""
    import torch

    digest = blake2b(f"{seed}:{what}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def hidden_update(site: Site, seed: int, options: Mapping[str, Any]) -> torch.Tensor:
    """ΔW (out, in) of one site, of Frobenius norm 1."""
    import torch

    generator = generator_for(seed, site.name)
    shape = site.out_features, site.in_features
    if options["spectrum"] == "gaussian":
        update = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (update / update.norm()).float()
    size = min(shape)
    left, right = (
        torch.linalg.qr(torch.randn(width, size, generator=generator, dtype=torch.float64)).Q for width in shape
    )
    return ((left * spectrum_of(options["spectrum"], options["rank"], size)) @ right.T).float()


def site_weight(module: torch.nn.Module, site: Site) -> torch.Tensor:
    """W (out, in) of a site, cut from a fused projection where it is part of one."""
    weight: Any = module.weight
    weight = weight.T if site.transposed else weight
    return weight[site.offset : site.offset + site.out_features]


def hook_for(site: Site, update: torch.Tensor) -> Callable[..., torch.Tensor]:
    def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[..., site.offset : site.offset + site.out_features] += inputs[0] @ update.T
        return changed

    return hook


@contextmanager
def teacher(
    backbone: Backbone, seed: int, options: Mapping[str, Any]
) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Adds the hidden update by hooks that are gone afterwards; yields the projection of the features.

    Raises:
        InputError: an option, or a backbone whose query and value maps nobody knows.
    """
    import torch

    TASK.check(options)
    chosen, sites = {**TASK.info.options, **options}, backbone.sites("qv")
    if not sites:
        raise InputError("task", "rank_probe", f"{backbone.id} has no known query and value maps to hide an update in")
    projection = torch.randn(backbone.hidden_size, OUTPUTS, generator=generator_for(seed, "projection"))
    projection /= backbone.hidden_size**0.5

    def targets(features: torch.Tensor) -> torch.Tensor:
        return features.float() @ projection.to(features.device)

    with ExitStack() as stack:
        for site in sites:
            module = backbone.model.get_submodule(site.module)
            weight = site_weight(module, site)
            update = hidden_update(site, seed, chosen).to(weight) * (chosen["strength"] * weight.norm())
            stack.callback(module.register_forward_hook(hook_for(site, update)).remove)
        yield targets


class RankProbe:
    info = TaskInfo(
        id="rank_probe",
        title="Rank probe",
        description="Follow a backbone to which a hidden weight update of a chosen spectrum was added: flat of a rank, "
        "decaying, or full Gaussian.",
        kind="regression",
        modality="any",
        metrics=("r2",),
        labels=None,
        outputs=OUTPUTS,
        train_rows=4000,
        eval_rows=1000,
        max_train_rows=MAX_ROWS,
        max_eval_rows=MAX_EVAL_ROWS,
        options={"spectrum": "flat", "rank": 8, "strength": 2.5},
    )
    teacher = staticmethod(teacher)

    def check(self, options: Mapping[str, Any]) -> None:
        check_options(options, self.info.options)
        chosen = {**self.info.options, **options}
        if chosen["spectrum"] not in SPECTRA:
            raise InputError("task_options.spectrum", chosen["spectrum"], f"it must be one of {', '.join(SPECTRA)}")
        rank, strength = chosen["rank"], chosen["strength"]
        if type(rank) is not int or not 1 <= rank <= MOST_RANK:
            raise InputError("task_options.rank", rank, f"it must be a whole number from 1 to {MOST_RANK}")
        if type(strength) not in (int, float) or not 0 < strength <= MOST_STRENGTH:
            raise InputError("task_options.strength", strength, f"it must be a number above 0 to {MOST_STRENGTH:g}")

    def rows(self, split: Split, count: int, seed: int, options: Mapping[str, Any]) -> Rows:
        """Unlabelled sentences and drawings; the teacher gives the targets of those that the model reads."""
        self.check(options)
        check_count(f"{split}_rows", count, MAX_ROWS if split == "train" else MAX_EVAL_ROWS)
        texts: dict[str, None] = {}
        source = passages(seed, split)
        while len(texts) < count:
            text, _ = next(source)
            if split_of(text) == split:
                texts.setdefault(text)
        return Rows({"text": list(texts), "image": DRAWINGS.rows(split, count, seed).columns["image"]}, None)


TASK = RankProbe()
