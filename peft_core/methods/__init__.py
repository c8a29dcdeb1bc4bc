"""The methods: every file of this folder whose name does not start with an underscore is one."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any, Literal

from peft_core.methods._contract import Attached, Group, Method, MethodConfig, SecondPass, WeightUpdate
from peft_core.methods._fold import Fold, added_tokens, kinship, obstacle, touched
from peft_core.methods._kernels import fastest
from peft_core.methods._masks import BoostConfig, transform
from peft_core.methods._modules import keyed_generator
from peft_core.records import START, InputError, MethodSpec, checked

__all__ = [
    "Attached",
    "BoostConfig",
    "Fold",
    "Group",
    "Method",
    "MethodConfig",
    "SecondPass",
    "WeightUpdate",
    "added_tokens",
    "discover",
    "fastest",
    "get_method",
    "keyed_generator",
    "kinship",
    "list_methods",
    "method_of_part",
    "obstacle",
    "register",
    "resolve",
    "touched",
    "transform",
]

_ORDER = ("baseline", "low-rank", "adapter", "prefix", "prompt")


def discover(package: ModuleType) -> dict[str, Method]:
    """The methods of a package, by id.

    Raises:
        ImportError: a file that declares no METHOD, or one whose id is not the file's name.
    """
    found = {}
    for entry in pkgutil.iter_modules(package.__path__):
        if entry.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{entry.name}")
        method = getattr(module, "METHOD", None)
        if not isinstance(method, Method) or method.id != entry.name:
            raise ImportError(f"{module.__file__} must declare METHOD = Method(id={entry.name!r}, ...)")
        found[method.id] = method
    return found


_OUTSIDE: dict[str, Method] = {}
"""Methods that `register` was given, by id."""


def register(method: Method) -> Method:
    """Makes a method of your own known in this process, under its id; given again, it replaces itself.

    Everything that names methods then takes it: `peft_core.attach`, `compare` (executor "thread"), budgets. A process
    that is started does not know it.

    Raises:
        InputError: its id is none, or that of a method of this package; its family is not known.
    """
    if method.id in _inside():
        raise InputError("method", method.id, "a method of this package is called so; choose another id")
    if method.family not in _ORDER:
        raise InputError("family", method.family, f"it must be one of {', '.join(_ORDER)}")
    _OUTSIDE[MethodSpec.parse(method.id).id] = method
    return method


@cache
def _inside() -> dict[str, Method]:
    return discover(importlib.import_module(__name__))


def _methods() -> dict[str, Method]:
    found = _inside() | _OUTSIDE
    return dict(sorted(found.items(), key=lambda item: _ORDER.index(item[1].family)))


def list_methods() -> list[Method]:
    """All methods, baselines first."""
    return list(_methods().values())


def get_method(method_id: str) -> Method:
    """The method with this id.

    Raises:
        InputError: there is none.
    """
    methods = _methods()
    if method_id not in methods:
        raise InputError("method", method_id, f"it must be one of {', '.join(methods)}")
    return methods[method_id]


def method_of_part(part: Literal["yardstick", "floor", "ceiling"]) -> Method:
    """The method that plays this part in comparisons (`Method.part`)."""
    return next(method for method in list_methods() if method.part == part)


def resolve(spec: MethodSpec) -> MethodConfig:
    """The config a spec stands for, every option filled in. What a run begins with is none of the method's options.

    Raises:
        InputError: an option that the method does not have, or a value outside its bounds.
    """
    nested: dict[str, Any] = {}
    if START in spec.options and spec.start is None:
        raise InputError(f"{spec.id}.{START}", spec.options[START], "it must be the id of a finished run")
    for key, value in ((key, value) for key, value in spec.options.items() if key != START):
        outer, dot, inner = key.partition(".")
        if dot and isinstance(nested.setdefault(outer, {}), dict):
            nested[outer][inner] = value
        else:
            nested[key] = value
    return checked(get_method(spec.id).Config, nested, prefix=f"{spec.id}.")
