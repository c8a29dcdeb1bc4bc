"""A method on a PyTorch module of one's own, trained in a loop of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from peft_core.backbones._plain import PlainBackbone
from peft_core.methods import Attached, Method, get_method, resolve
from peft_core.methods._surgery import weight_at
from peft_core.records import InputError, LayerRank, MethodSpec
from peft_core.training.evaluate import layer_ranks


class Adapted(nn.Module):
    """A frozen module with a method's modules on its linear maps: y = f(x; W + dW).

    Its parameters, its state_dict and what an optimizer gets from it are what trains, and nothing of the frozen module.
    Called in training mode it draws what the method draws (dropout, masks of kind `dropout`) anew at every call.

    >>> import torch, peft_core
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    >>> tuned = peft_core.attach(net, "capaboost_lora:rank=1,d=2")
    >>> optimizer = torch.optim.AdamW(tuned.parameters(), lr=1e-2)
    >>> x, y = torch.randn(32, 8), torch.randn(32, 1)
    >>> for _ in range(3):
    ...     loss = torch.nn.functional.mse_loss(tuned(x), y)
    ...     loss.backward()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    >>> sorted(tuned.state_dict())
    ['adapter.0.A', 'adapter.0.B', 'adapter.2.A', 'adapter.2.B']
    >>> before = tuned.eval()(x)
    >>> torch.allclose(tuned.merge()(x), before, atol=1e-5)
    True
    """

    def __init__(
        self, module: nn.Module, method: str, seed: int, sites: Sequence[str] | None, train_also: Sequence[str]
    ) -> None:
        super().__init__()
        spec = MethodSpec.parse(method)
        backbone = PlainBackbone(module, sites, train_also)
        found = get_method(spec.id)
        attached = found.attach(backbone, resolve(spec), torch.Generator().manual_seed(seed))
        _refuse_loops(found, attached)
        if backbone.trained:
            attached.override(tuple(name for name in backbone.trained if name not in attached.overrides))
        if not attached.trainable():
            raise InputError(
                "method", spec.id, "it trains nothing here; name submodules in train_also, or take another"
            )
        self._unregistered = (module,)
        self._attached, self._method = attached, found
        self._calls, self._merged, self._watching = 0, False, True
        self._seen: set[str] = set()
        self._trained_before = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
        module.requires_grad_(False)
        self.adapter, self.own = nn.Module(), nn.ParameterDict()
        for name, part in attached.modules.items():
            _put(self.adapter, name, part)
        for name, parameter in attached.overrides.items():
            self.own[name.replace(".", "/")] = parameter
        self.train(module.training)

    @property
    def module(self) -> nn.Module:
        """The module that was given."""
        return self._unregistered[0]

    @property
    def attached(self) -> Attached:
        """The method's part, with `updates()` for ranks and `counts` for what is trained and stored."""
        return self._attached

    @property
    def trainable(self) -> int:
        """Parameters that train: of masked tensors the values that some mask keeps."""
        return self.attached.active_parameters()

    def ranks(self) -> tuple[LayerRank, ...]:
        """Rank of the update of every adapted map, from its factors, with all singular values."""
        training = self.training
        try:
            return layer_ranks(self.attached, spectra=True)[1]
        finally:
            self.attached.train(training)

    @property
    def sites(self) -> tuple[str, ...]:
        """Paths of the adapted maps."""
        return tuple(site.module for site, _ in self.attached.at_sites)

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        """Within it the module itself, called by whatever holds it, computes with the adapter.

        Torch's fused path of transformer layers, which would take the frozen weights by itself, is off within it.
        """
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with self.attached.active():
                yield self.module
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the module answers with the adapter, or with the update in its weights once it is merged."""
        if self._merged:
            return self.module(*inputs, **named)
        if self.training:
            self._draw()
        with self._watched(), self.active() as module:
            return module(*inputs, **named)

    def _draw(self) -> None:
        for hook in self.attached.before_step:
            hook(self._calls)
        self.attached.begin_rows(self._calls, 0)
        self._calls += 1

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """At the first call, tells of adapted maps that did not run: the module takes their weights by itself."""
        if not self._watching:
            yield
            return
        handles = [self.module.get_submodule(path).register_forward_pre_hook(self._note(path)) for path in self.sites]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self._watching = False
        idle = [path for path in self.sites if path not in self._seen]
        if idle:
            warnings.warn(f"adapted maps that did not run, so that they cannot learn: {', '.join(idle)}", stacklevel=4)

    def _note(self, path: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            self._seen.add(path)

        return note

    def train(self, mode: bool = True) -> Self:
        """The frozen module's dropout and norms go along."""
        super().train(mode)
        self.module.train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.module._apply(fn)
        super()._apply(fn, recurse)
        return self

    @torch.no_grad()
    def merge(self) -> nn.Module:
        """Puts W + dW, and what trained of the module itself, into the module for good, and returns it.

        Sums are taken in float64 and rounded once. Its parameters ask for gradients again as they did before.

        Raises:
            InputError: the method is no update of weights, it is merged already, or a value is not finite.
        """
        attached, method = self.attached, self._method
        if self._merged:
            raise InputError("merge", method.id, "the update is in the weights already")
        if attached.modules and not method.mergeable:
            raise InputError("merge", method.id, "it adds modules that are no weight update, so it does not merge")
        sums = self._sums()
        for name, value in sums.items():
            if not bool(value.isfinite().all()):
                raise InputError("merge", name, "its values are not finite")
        for name, value in sums.items():
            self.module.get_parameter(name).copy_(value)
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(self._trained_before[name])
        self._merged = True
        return self.module

    def _sums(self) -> dict[str, Tensor]:
        """New values by name of the parameter."""
        attached = self.attached
        sites = {site.name: site for site, _ in attached.at_sites}
        found: dict[str, Tensor] = {name: value.detach() for name, value in attached.overrides.items()}
        for update in attached.updates():
            site = sites.get(update.site)
            if site is None or update.kind != "delta" or update.left is None or update.right is None:
                continue
            name = f"{site.module}.weight" if site.module else "weight"
            total = self.module.get_parameter(name).to(torch.float64, copy=True)
            weight_at(site, total).add_(update.left.double() @ update.right.double())
            found[name] = total
        return found


def _put(parent: nn.Module, name: str, part: nn.Module) -> None:
    """Registers a module under a dotted path, so that its parameters are called by it."""
    *path, last = name.split(".")
    for step in path:
        if step not in parent._modules:
            parent.add_module(step, nn.Module())
        parent = parent.get_submodule(step)
    parent.add_module(last, part)


def _refuse_loops(method: Method, attached: Attached) -> None:
    """Refuses methods that must be called by the loop that trains them: InputError."""
    called = (
        attached.penalty,
        attached.second_pass,
        attached.on_start,
        attached.after_backward,
        attached.before_update,
        attached.after_step,
        attached.groups,
    )
    if any(called) or attached.load_extra_state is not None:
        allowed = "it needs a loop that calls it at every step; on a module of your own take one without, such as "
        raise InputError("method", method.id, f"{allowed}capaboost's or plain low-rank updates")
