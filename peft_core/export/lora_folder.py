"""Reading LoRA folders of Hugging Face PEFT that others made: any r, alpha, patterns and rsLoRA; nothing is trusted.

Only JSON and safetensors are read, layer by layer; the base model is not needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from peft_core.export.factors import Factors
from peft_core.export.folders import read_json
from peft_core.export.peft_format import CONFIG, PREFIX, WEIGHTS
from peft_core.records import InputError

MAX_BYTES = 16 * 2**30
"""Largest file of weights that is read."""
MAX_LAYERS, MAX_CORE = 20_000, 8192
"""Most adapted modules, and the largest core whose singular values are taken."""
_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<side>[AB])(?:\.default)?(?P<end>(?<!\bembedding_)\.weight)?"
)
_PLAIN = re.compile(r"[\w.-]+")
OTHER_KINDS = {
    "use_dora": "DoRA, which also rescales the base weights",
    "use_qalora": "QALoRA, which pools the inputs",
    "use_bdlora": "BD-LoRA, whose factors are block-diagonal",
    "kasa_config": "KaSA, which changes the base weights",
    "monteclora_config": "MonteCLoRA, which draws its factors",
    "arrow_config": "Arrow, which routes among adapters",
    "target_parameters": "LoRA on parameters of experts",
}
HARMLESS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Kinds of initialisation that leave the base weights as they are when a folder is loaded."""


@dataclass(frozen=True)
class LoraLayer:
    """One adapted module: names and shapes of its two tensors, and the scale of their product.

    A linear map has A (r, in) and B (out, r), an embedding A (r, rows) and B (width, r), a convolution A (r, in, ...)
    and B (out, r, 1, ...), which is read as the map of its unrolled input.
    """

    module: str
    a: str
    b: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    scale: float

    @property
    def rank(self) -> int:
        """r, the inner dimension."""
        return self.shape_a[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the update as a matrix."""
        return self.shape_b[0], math.prod(self.shape_a[1:])

    @property
    def parameters(self) -> int:
        return math.prod(self.shape_a) + math.prod(self.shape_b)


@dataclass(frozen=True)
class LoraFolder:
    """A folder that was looked through. others: tensors that are no factors (a head, biases), with their shapes."""

    path: Path
    config: Mapping[str, Any]
    layers: tuple[LoraLayer, ...]
    others: Mapping[str, tuple[int, ...]]

    @property
    def changes_base(self) -> str | None:
        """The kind of initialisation by which PEFT changes the base weights when it loads the folder, such as PiSSA's.

        The update is then not the product of the factors alone.
        """
        kind = self.config.get("init_lora_weights", True)
        return None if kind in HARMLESS else str(kind)[:30]

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The file of weights, from which tensors can be taken one by one."""
        with _readable(self.path), safe_open(self.path / WEIGHTS, framework="pt") as file:
            yield file

    def factors(self, file: Any, layer: LoraLayer) -> Factors:
        """The layer's update as left (out, r) @ right (r, in), scale included, in float64.

        Raises:
            InputError: a value that is not finite.
        """
        with _readable(self.path):
            right, left = (file.get_tensor(name).to(torch.float64).flatten(1) for name in (layer.a, layer.b))
        if not bool(left.isfinite().all() and right.isfinite().all()):
            raise InputError("adapter", str(self.path), f"{layer.module} holds values that are not finite")
        return Factors(left * layer.scale, right)


def read_lora_folder(path: Path) -> LoraFolder:
    """Looks through a folder without reading its values.

    Raises:
        InputError: one sentence for a folder that is none, of another kind, damaged, too large, or pickled.
    """
    if not path.is_dir():
        raise InputError("adapter", str(path), "it must be a folder")
    if not (path / CONFIG).is_file():
        raise InputError("adapter", str(path), f"it must hold {CONFIG} of PEFT, or adapter.json of a native export")
    config = read_json(path / CONFIG, "adapter")
    _check_kind(config, path)
    if not (path / WEIGHTS).is_file():
        pickled = any(path.glob("*.bin")) or any(path.glob("*.pt"))
        why = "its weights are pickled, which can run code when read; save them as safetensors" if pickled else None
        if any(path.glob("*.safetensors")):
            why = f"its weights are in several files or under another name; one file {WEIGHTS} is read"
        raise InputError("adapter", str(path), why or f"the file {WEIGHTS} is missing")
    size = (path / WEIGHTS).stat().st_size
    if size > MAX_BYTES:
        raise InputError("adapter", str(path), f"its weights have {size:,} bytes; at most {MAX_BYTES:,} are read")
    with _readable(path), safe_open(path / WEIGHTS, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    layers, others = _layers(shapes, config, path)
    return LoraFolder(path, config, layers, others)


def _check_kind(config: Mapping[str, Any], path: Path) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InputError("adapter", str(path), f"its peft_type is {str(kind)[:40]}; only LORA is read")
    for name, what in OTHER_KINDS.items():
        if config.get(name):
            raise InputError("adapter", str(path), f"it is {what}; only plain LoRA is read")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what a damaged file raises into a sentence."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise InputError("adapter", str(path), f"{WEIGHTS} is damaged: {first}") from error


def _layers(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], path: Path
) -> tuple[tuple[LoraLayer, ...], dict[str, tuple[int, ...]]]:
    sides: dict[str, dict[str, str]] = {}
    others: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        found = _FACTOR.fullmatch(name)
        if found is None or (found["end"] is None) != (found["kind"] is not None):
            if "lora_magnitude_vector" in name:
                raise InputError("adapter", str(path), f"it is {OTHER_KINDS['use_dora']}; only plain LoRA is read")
            others[name] = shape
            continue
        sides.setdefault(found["module"], {})[found["side"]] = name
    if not sides:
        raise InputError("adapter", str(path), "its weights hold no factors of LoRA")
    if len(sides) > MAX_LAYERS:
        raise InputError("adapter", str(path), f"it adapts {len(sides):,} modules; at most {MAX_LAYERS:,} are read")
    alphas = _Alphas(config, path)
    return tuple(_layer(module, names, shapes, alphas, path) for module, names in sorted(sides.items())), others


def _layer(
    module: str, names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], alphas: _Alphas, path: Path
) -> LoraLayer:
    if len(names) != 2:
        raise InputError("adapter", str(path), f"{module} has only one of its two factors")
    a, b = shapes[names["A"]], shapes[names["B"]]
    fits = 2 <= len(a) == len(b) <= 5 and min(*a, *b) > 0 and a[0] == b[1] and math.prod(b[2:]) == 1
    if not fits:
        raise InputError("adapter", str(path), f"the factors of {module} have shapes {a} and {b}, which do not fit")
    if min(a[0], b[0], math.prod(a[1:])) > MAX_CORE:
        raise InputError("adapter", str(path), f"{module} has rank {a[0]:,}; at most {MAX_CORE:,} is taken apart")
    plain = module.removeprefix(PREFIX)
    return LoraLayer(plain, names["A"], names["B"], a, b, alphas.scale(plain, a[0]))


class _Alphas:
    """The scale of every module: alpha / r, with rsLoRA alpha / sqrt(r), alpha by module where a pattern says so.

    A pattern is an expression for the end of a module's name, and the first that fits counts, as in PEFT. One from a
    stranger's file may take for ever to match, so only simple ones are taken.
    """

    def __init__(self, config: Mapping[str, Any], path: Path) -> None:
        self.path, self.stabilised = path, bool(config.get("use_rslora"))
        self.common = self._number(config.get("lora_alpha", 8))
        patterns = config.get("alpha_pattern") or {}
        if not isinstance(patterns, dict) or len(patterns) > MAX_LAYERS:
            raise InputError("adapter", str(path), "its alpha_pattern must be an object")
        self.values = [self._number(value) for value in patterns.values()]
        self.names = {key: place for place, key in enumerate(patterns) if _PLAIN.fullmatch(key)}
        self.expressions = [(place, self._compiled(key)) for place, key in enumerate(patterns) if key not in self.names]

    def _number(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError("adapter", str(self.path), "its lora_alpha and alpha_pattern must be finite numbers")
        return float(value)

    def _compiled(self, key: str) -> re.Pattern[str]:
        simple = len(key) <= 500 and len(re.findall(r"[*+{?]", key)) <= 3 and not re.search(r"\)[*+{?]", key)
        try:
            if simple:
                return re.compile(rf"(.*\.)?({key})$")
        except re.error:
            pass
        raise InputError("adapter", str(self.path), "its alpha_pattern holds an expression that cannot be used")

    def scale(self, module: str, rank: int) -> float:
        """What the product of the module's factors is multiplied with."""
        parts = module.split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts)))
        places = [self.names[end] for end in ends if end in self.names]
        places += [next((place for place, found in self.expressions if found.match(module)), len(self.values))]
        alpha = [*self.values, self.common][min(places)]
        return alpha / math.sqrt(rank) if self.stabilised else alpha / rank


def as_tensor(values: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A factor's matrix in the layout and type of the tensor that it replaces."""
    return values.reshape(shape).to(like.dtype).contiguous()
