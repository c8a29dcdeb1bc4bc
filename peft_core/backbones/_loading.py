"""Backbones from a folder of weights or the Hub, or from a config alone on the meta device."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_core.backbones._catalog import config_of, family_for, position_limit, read_config, task_for
from peft_core.backbones._family import Family, TaskModel
from peft_core.backbones._sources import fetch_model
from peft_core.records import InputError, Problem

if TYPE_CHECKING:
    import torch

    from peft_core.backbones._backbone import TransformerBackbone

HEAD_STD = 0.02
_ALONE = threading.RLock()


def load_backbone(
    model_id: str,
    *,
    outputs: int = 2,
    problem: Problem,
    device: str = "cpu",
    labels: Sequence[str] | None = None,
) -> TransformerBackbone:
    """A backbone with its weights (float32, frozen, evaluation mode) and the head that a problem needs.

    A head is that of `initial_head(backbone, 0)` even where the folder holds a trained one: `outputs` values for
    classes and regression targets, start and end (2 h + 2 values) for spans. Generation has none: the model writes
    through its own frozen map onto the vocabulary.

    Args:
        model_id: an embedded model's id, a local folder, or a model of the Hub, which is downloaded where it is not
            cached (`fetch_model` tells how far it is).
        outputs: classes, or regression targets; for classification and regression only.
        problem: what the model is asked for.
        device: a torch device.
        labels: words of the classes, which a family without a head (T5) answers with.

    Raises:
        InputError: the model cannot be had, is of an unknown architecture or one that cannot do the problem, or its
            files cannot be read.
    """
    from peft_core.backbones._backbone import TransformerBackbone
    from peft_core.backbones._generic import planned

    folder = fetch_model(model_id).folder
    config = read_config(folder)
    family = family_for(model_id, config)
    task = task_for(model_id, family, problem)
    with quiet():
        model_config = _model_config(config, model_id)
        processor = _load_processor(folder, family, model_id)
        _prepare(model_config, outputs, problem, processor)
        model, absent = _load_weights(folder, family, task, model_config, model_id)
        family = planned(family, model, problem, model_id)
    head = task_for(model_id, family, problem).head
    _check_body(absent, head, model_id)
    words = not head and problem != "generation"
    backbone = TransformerBackbone(
        model_id,
        family,
        model,
        processor=processor,
        max_length=_max_length(position_limit(family, config), processor),
        outputs=outputs,
        problem=problem,
        label_tokens=_label_tokens(model_id, processor, problem, labels) if words else None,
    )
    load_head(backbone, initial_head(backbone, 0))
    backbone.model.to(device)
    return backbone


def label_tokens(backbone: TransformerBackbone, problem: Problem, labels: Sequence[str] | None) -> list[int]:
    """Tokens by which a model without a head answers a task: the first ones of its label words.

    Raises:
        InputError: regression, no words, or two words that begin with the same token.
    """
    return _label_tokens(backbone.id, backbone.processor, problem, labels)


def _label_tokens(model_id: str, processor: Any, problem: str, labels: Sequence[str] | None) -> list[int]:
    if problem != "classification" or not labels:
        raise InputError("task", problem, f"{model_id} answers in words, so the task must have classes")
    tokens = [int(processor(word, add_special_tokens=False)["input_ids"][0]) for word in labels]
    if len(set(tokens)) < len(tokens):
        raise InputError("task", ", ".join(labels), f"{model_id} needs label words that begin with different tokens")
    return tokens


def meta_backbone(model_id: str, outputs: int = 2, problem: Problem = "classification") -> TransformerBackbone:
    """A backbone built from its config on the meta device: shapes only, no weights.

    No network either, but for the config of a model of the Hub that is not cached.

    Raises:
        InputError: there is no such model, or its architecture cannot do the problem.
    """
    import torch

    from peft_core.backbones._backbone import TransformerBackbone

    config, transformers = config_of(model_id), _library()
    family = family_for(model_id, config)
    task = task_for(model_id, family, problem)
    with quiet(), torch.device("meta"):
        model_config = _model_config(config, model_id)
        _prepare(model_config, outputs, problem, None)
        model = getattr(transformers, task.auto_model).from_config(model_config, dtype=torch.float32)
    return TransformerBackbone(
        model_id, family, model, max_length=position_limit(family, config), outputs=outputs, problem=problem
    )


def initial_head(backbone: TransformerBackbone, seed: int) -> dict[str, torch.Tensor]:
    """First values of the task head: matrices N(0, 0.02²), zero biases, norms that scale by one.

    Keyed by seed and parameter name, so they depend neither on what was drawn before nor on the backbone's device.

    Returns:
        tensors on the CPU by parameter name.
    """
    import torch

    values = {}
    for name in backbone.head_parameters():
        shape = backbone.model.get_parameter(name).shape
        if len(shape) < 2:
            values[name] = torch.ones(shape) if name.endswith(".weight") else torch.zeros(shape)
            continue
        digest = hashlib.sha256(f"head\0{seed}\0{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
        values[name] = torch.empty(shape).normal_(0.0, HEAD_STD, generator=generator)
    return values


def load_head(backbone: TransformerBackbone, values: dict[str, torch.Tensor]) -> None:
    """Copy values into the head's parameters."""
    import torch

    with torch.no_grad():
        for name, value in values.items():
            backbone.model.get_parameter(name).copy_(value)


_SAFE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def _model_config(config: dict[str, Any], model_id: str) -> Any:
    """The transformers config of a config.json.

    Raises:
        InputError: a value that the architecture does not take.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        return _library().AutoConfig.for_model(**config)
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        raise InputError("model", model_id, f"its config.json cannot be used: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".:") if lines else type(error).__name__


def _load_weights(
    folder: Path, family: Family, task: TaskModel, config: Any, model_id: str
) -> tuple[torch.nn.Module, list[str]]:
    """The model in float32, and the parameters that its files do not have in this shape.

    The random head that transformers draws leaves torch's global generator as it was.

    Raises:
        InputError: no safetensors file, or one that cannot be read.
    """
    import safetensors
    import torch

    transformers = _library()
    if not any(folder.glob("*.safetensors")):
        raise InputError("model", model_id, "this folder holds no safetensors weights")
    with torch.random.fork_rng(devices=[]):
        try:
            model, report = getattr(transformers, task.auto_model).from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                attn_implementation=family.attention,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **_SAFE,
            )
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise InputError("model", model_id, f"its weights cannot be read: {_first_line(error)}") from error
    return model, [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]


def _check_body(absent: list[str], head: tuple[str, ...], model_id: str) -> None:
    """Refuses weights without the whole body: InputError."""
    body = sorted(name for name in absent if not name.startswith(head))
    if body:
        raise InputError(
            "model", model_id, f"its weights do not fit its config.json: {body[0]} is absent or of another size"
        )


def _load_processor(folder: Path, family: Family, model_id: str) -> Any:
    from peft_core.backbones._images import ImageProcessor

    transformers = _library()
    kind: Any = transformers.AutoTokenizer if family.modality == "text" else transformers.AutoImageProcessor
    try:
        processor: Any = kind.from_pretrained(folder, **_SAFE)
    except (OSError, ValueError, KeyError) as error:
        missing = "tokenizer" if family.modality == "text" else "image processor (preprocessor_config.json)"
        raise InputError("model", model_id, f"this folder holds no {missing} that can be read") from error
    if family.modality == "image":
        return ImageProcessor(processor)
    if processor.pad_token is None:
        processor.pad_token = processor.eos_token or processor.unk_token or processor.bos_token
    return processor


def _prepare(config: Any, outputs: int, problem: Problem, processor: Any) -> None:
    """Set the head's width and what it is for; give a decoder a padding token.

    The architecture's class alone decides what is built: a class that the config names may have other heads (DeiT).
    """
    config.architectures = []
    if problem == "span":
        config.num_labels = 2
    elif problem != "generation":
        config.num_labels = outputs
        config.problem_type = "regression" if problem == "regression" else "single_label_classification"
    if getattr(config, "pad_token_id", None) is None and getattr(processor, "pad_token_id", None) is not None:
        config.pad_token_id = processor.pad_token_id
    config.use_cache = False


def _max_length(positions: int | None, processor: Any) -> int | None:
    """The smaller of the positions and the tokenizer's own limit; transformers writes a huge number for none."""
    stated = getattr(processor, "model_max_length", None)
    limits = [limit for limit in (positions, stated) if limit is not None and limit < 1_000_000]
    return min(limits) if limits else None


def _library() -> Any:
    """transformers itself. It puts another module in its place while it is imported, and an import statement that waits
    for another thread's gives the one before.
    """
    return import_module("transformers")


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' progress bars and its notes on freshly made heads; errors still come through.

    One thread at a time: transformers fills its modules when they are first asked, which two threads at once break.
    """
    from transformers.utils import logging as transformers_logging

    with _ALONE:
        verbosity = transformers_logging.get_verbosity()
        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", category=UserWarning)
                yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            if bars:
                transformers_logging.enable_progress_bar()
