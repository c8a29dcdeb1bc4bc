"""How a method's modules get into a backbone and out again without a trace: forward hooks and swapped parameters.

One copy of the backbone serves all runs of a comparison. While an attachment is active its hooks are on the sites and
its own parameters stand where the frozen ones stood; afterwards the backbone is what it was, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_core.methods._product import FrozenMap
from peft_core.records import AdapterPlace, Site

Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]
Context = Callable[[], AbstractContextManager[None]]
Owners = dict[str, list[tuple[nn.Module, str]]]


class SiteHook:
    """Adds update(x) to a linear map's output, at the site's own output features where the projection is fused.

    Where the map stands by itself and the update can take it along (`takes_frozen`), `stand_in` computes both at once.
    """

    def __init__(self, site: Site, update: Callable[..., Tensor]) -> None:
        self.site, self.update = site, update

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return added_at(self.site, output, self.update(args[0]))

    def stand_in(self, module: nn.Module) -> Callable[[Tensor], Tensor] | None:
        """What the module's forward can be in place of forward and hook; None where something else is on it.

        Hooks of others are to see the frozen output, and a map that trains has a gradient of its own.
        """
        plain = type(module) is nn.Linear or (self.site.transposed and type(module).__name__ == "Conv1D")
        if not plain or module._forward_hooks or module._backward_hooks or "forward" in vars(module):
            return None
        own, bias = module.get_parameter("weight"), module._parameters.get("bias")
        weight = own.T if self.site.transposed else own
        trains = weight.requires_grad or (bias is not None and bias.requires_grad)
        if trains or len(weight) != self.site.out_features or not getattr(self.update, "takes_frozen", False):
            return None
        frozen = FrozenMap(weight, bias)
        return lambda x: self.update(x, frozen)


def added_at(site: Site, output: Tensor, addition: Tensor) -> Tensor:
    """output (..., all features) with the addition (..., out) at the site's own features."""
    if output.shape[-1] == addition.shape[-1]:
        return output + addition
    before, after = site.offset, output.shape[-1] - site.offset - site.out_features
    return output + F.pad(addition, (before, after))


class Positions:
    """Keeps updates from the table of relative positions, of maps that transform it as well as their content.

    left_out: roles of the maps whose updates reach the content alone. Merging them into the weight is then not exact.
    """

    def __init__(self) -> None:
        self.left_out: set[str] = set()
        self._content: dict[str, Any] = {}

    def guarded(self, site: Site, hook: Hook) -> Hook:
        """The hook of a site, which does nothing where the site's role is left out and the input is the table."""
        self._content[site.content] = None

        def only_content(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            return output if self.skips(site, args[0]) else hook(module, args, output)

        return only_content

    def skips(self, site: Site, x: Tensor) -> bool:
        """Whether the update at the site leaves out this input."""
        return site.role in self.left_out and bool(site.content) and x is not self._content[site.content]

    @contextmanager
    def reading(self, model: nn.Module) -> Iterator[None]:
        """Within it every module that reads content is watched for what it reads."""
        with ExitStack() as undo:
            for path in self._content if self.left_out else ():
                watch = partial(self._read, path)
                undo.callback(model.get_submodule(path).register_forward_pre_hook(watch, with_kwargs=True).remove)
            yield
        self._content = dict.fromkeys(self._content)

    def _read(self, path: str, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._content[path] = args[0] if args else options["hidden_states"]


def place_hook(place: AdapterPlace, adapter: Callable[[Tensor], Tensor]) -> Hook:
    """Puts an adapter at a place, in the form that the architecture asks for (METHODS.md, Sites)."""

    def post_norm(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return layer_norm(module, args[0] + adapter(output))

    def add(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + adapter(output[0]), *output[1:])
        return output + adapter(output)

    return post_norm if place.form == "post_norm" else add


def idle_hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """From here on a gradient is asked for: what a module asks of the backbone, without the module's work."""
    first, *others = output if isinstance(output, tuple) else (output,)
    moved = first if first.requires_grad else first.detach().requires_grad_()
    return (moved, *others) if isinstance(output, tuple) else moved


def layer_norm(module: nn.Module, x: Tensor) -> Tensor:
    """The module's own forward, without the hooks that are on it."""
    return type(module).forward(module, x)


def parameter_owners(model: nn.Module) -> Owners:
    """For every parameter name all places (module, attribute) that hold that parameter; tied ones have several."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((module, attribute))
    return {name: places[id(parameter)] for name, parameter in model.named_parameters()}


@contextmanager
def installed(
    model: nn.Module,
    hooks: Sequence[tuple[str, Hook]],
    parameters: Mapping[str, nn.Parameter],
    owners: Owners,
    contexts: Sequence[Context] = (),
) -> Iterator[None]:
    """Within it the hooks are on the named modules, the parameters stand in for the model's own, contexts are open.

    Args:
        owners: of the model's parameters, from `parameter_owners`.
    """
    with ExitStack() as undo:
        for name, parameter in parameters.items():
            for module, attribute in owners[name]:
                undo.callback(module._parameters.__setitem__, attribute, module._parameters[attribute])
                module._parameters[attribute] = parameter
        modules = [model.get_submodule(path) for path, _ in hooks]
        for module, (_, hook) in zip(modules, hooks, strict=True):
            whole = hook.stand_in(module) if isinstance(hook, SiteHook) and modules.count(module) == 1 else None
            if whole is None:
                undo.callback(module.register_forward_hook(hook).remove)
            else:
                module.forward = whole
                undo.callback(delattr, module, "forward")
        for context in contexts:
            undo.enter_context(context())
        yield


def weight_at(site: Site, weight: Tensor) -> Tensor:
    """(out, in): the site's part of its module's weight."""
    full = weight.T if site.transposed else weight
    return full[site.offset : site.offset + site.out_features]


def own_copy(parameter: Tensor) -> nn.Parameter:
    """A trainable copy."""
    return nn.Parameter(torch.clone(parameter.detach()))
