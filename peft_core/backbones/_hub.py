"""Models of the Hub: looked at before a download, pinned to a commit, downloaded file by file, found again offline.

Only safetensors weights, configs and tokenizers of a repository are fetched, and nothing in it is ever run. The files
lie where the Hub's own client keeps them, so that every program on the machine shares one copy.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from peft_core.backbones._hub_cache import (
    INDEX,
    SHARD,
    WEIGHTS,
    cache_folder,
    cached_config,
    cached_model,
    note_commit,
    offline,
    remove_leftovers,
    snapshot,
    stays_local,
)
from peft_core.backbones._hub_calls import HURRIED_ATTEMPTS, TIMEOUT, HubUnavailable, attempted
from peft_core.backbones._hub_ids import COMMIT, HubId
from peft_core.backbones._hub_transfer import Meter, Progress, fetch_file, token
from peft_core.records import InputError

CONFIGS = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json")
TOKENIZERS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja"),
    *("spm.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "source.spm", "target.spm"),
)
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
REMEMBERED_SECONDS = 300.0
"""How long a process goes by what the Hub once said of a model."""
REFUSED_SECONDS = 10.0
"""How long a form that asks again and again gets the same refusal, so that nobody waits for every key that is typed."""
MAX_CONFIG_BYTES = 5_000_000
FLOOR_BYTES = 200 * 2**20
"""Room that a download leaves on the disk."""
GB = 1e9


@dataclass(frozen=True)
class HubModel:
    """What is known of a model before its weights are at hand.

    files: bytes by name of what is needed; empty where the Hub was not asked. folder: its whole copy on this disk.
    said: why that copy is used unasked, where somebody should know.
    """

    hub: HubId
    commit: str
    config: dict[str, Any]
    license: str = "unknown"
    files: Mapping[str, int] = field(default_factory=dict)
    folder: Path | None = None
    said: str | None = None


_known: dict[HubId, tuple[float, HubModel | InputError]] = {}


def look_up(hub: HubId, model_id: str, patient: bool = False, said: Callable[[str], None] | None = None) -> HubModel:
    """A model's commit, config and sizes: from the Hub, or from a copy where the Hub is off or down.

    Nothing but config.json is downloaded. A process asks again after `REMEMBERED_SECONDS`.

    Args:
        patient: whether a busy Hub is waited for; else somebody waits for the answer, who gets one soon.
        said: hears of pauses between attempts.

    Raises:
        InputError: there is no such model, it cannot be had, or it holds what is not loaded; or neither Hub nor copy.
    """
    if stays_local():
        return _from_cache(hub, model_id)
    then, known = _known.get(hub, (0.0, None))
    age = time.monotonic() - then
    if isinstance(known, InputError) and not patient and age < REFUSED_SECONDS:
        raise InputError("model", model_id, known.allowed)
    found = known if isinstance(known, HubModel) and age < REMEMBERED_SECONDS else None
    if found is None:
        try:
            found = _look_up(hub, model_id, patient, said)
        except InputError as error:
            _known[hub] = (time.monotonic(), error)
            raise
        _known[hub] = (time.monotonic(), found)
    folder = cached_model(replace(hub, revision=found.commit))
    whole = folder is not None and all((folder / name).is_file() for name in found.files)
    return replace(found, folder=folder if whole else None)


def _look_up(hub: HubId, model_id: str, patient: bool, said: Callable[[str], None] | None) -> HubModel:
    copy = cached_model(hub)
    if copy is not None and (hub.pinned or offline()):
        return _from_copy(hub, model_id, copy, None if hub.pinned else "the Hub is switched off")
    if offline():
        allowed = f"{hub.repository} is not in the cache, and the Hub is switched off (HF_HUB_OFFLINE)"
        raise InputError("model", model_id, allowed)
    try:
        attempts = 1 if copy else None if patient else HURRIED_ATTEMPTS
        return _ask(hub, model_id, partial(attempted, model_id, attempts=attempts, said=said))
    except HubUnavailable as error:
        if copy is None:
            allowed = f"{error}, and there is no copy in the cache; try again later"
            raise InputError("model", model_id, allowed) from None
        return _from_copy(hub, model_id, copy, str(error))


def _from_cache(hub: HubId, model_id: str) -> HubModel:
    copy = cached_config(hub)
    if copy is None:
        allowed = f"the config of {hub.repository} is not in the cache, and no network is used; --fetch reads it"
        raise InputError("model", model_id, allowed)
    return _from_copy(hub, model_id, copy, None)


def _from_copy(hub: HubId, model_id: str, folder: Path, reason: str | None) -> HubModel:
    commit = folder.name
    said = f"{reason}: the copy of {hub.repository} at commit {commit[:12]} is used" if reason else None
    return HubModel(hub, commit, read_json(folder / "config.json", model_id), said=said)


def _ask(hub: HubId, model_id: str, call: Callable[[Callable[[], Any]], Any]) -> HubModel:
    """The Hub's metadata, refused where something in it is not loaded, with config.json. call: makes the attempts."""
    from huggingface_hub import HfApi

    api = HfApi(token=token())
    info = call(partial(api.model_info, hub.repository, revision=hub.revision, files_metadata=True, timeout=TIMEOUT))
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
    if info.sha is None or not COMMIT.fullmatch(info.sha):
        raise InputError("model", model_id, "the Hub gives no commit for it")
    files = _needed(sizes, model_id)
    folder = snapshot(hub, info.sha)
    missing = sum(size for name, size in files.items() if not (folder / name).is_file())
    counted = info.safetensors.total if info.safetensors is not None else None
    _check_size(model_id, files, missing, counted)
    config = read_json(call(partial(fetch_file, hub, info.sha, "config.json")), model_id)
    licenses = [tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:")]
    return HubModel(hub, info.sha, config, license=licenses[0] if licenses else "unknown", files=files)


def _needed(sizes: Mapping[str, int | None], model_id: str) -> dict[str, int]:
    """Bytes of the files that loading needs, weights last.

    Raises:
        InputError: no safetensors weights, Python code, or no config.
    """
    code = sorted(name for name in sizes if name.endswith(".py"))
    if code:
        allowed = f"it holds Python code ({code[0]}), and code from the Hub is refused; a folder with its weights works"
        raise InputError("model", model_id, allowed)
    if "config.json" not in sizes:
        raise InputError("model", model_id, "it holds no config.json of a transformers model")
    shards = sorted(name for name in sizes if SHARD.fullmatch(name))
    weights = [WEIGHTS] if WEIGHTS in sizes else [INDEX, *shards] if INDEX in sizes and shards else []
    if not weights:
        pickled = sorted(name for name in sizes if name.endswith(PICKLED))
        what = f"only pickled weights ({pickled[0]})" if pickled else "no weights"
        raise InputError(
            "model",
            model_id,
            f"it holds {what}, and only model.safetensors is loaded; name a revision that has one "
            "(owner/name@refs/pr/1), or a folder with a converted copy",
        )
    names = [name for name in (*CONFIGS, *TOKENIZERS) if name in sizes] + weights
    unknown = next((name for name in names if sizes[name] is None), None)
    if unknown:
        raise InputError("model", model_id, f"the Hub does not say how large its {unknown} is")
    return {name: sizes[name] or 0 for name in names}


def _check_size(model_id: str, files: Mapping[str, int], missing: int, parameters: int | None) -> None:
    """Refuses what neither disk nor memory holds. parameters: as the Hub counts them; weights load as float32."""
    stored = sum(size for name, size in files.items() if name.endswith(".safetensors"))
    loaded = max(stored, 4 * (parameters or 0))
    disk, memory = _free_disk() - FLOOR_BYTES, _memory()
    allowed = _most_bytes()
    if allowed is not None and stored > allowed:
        raise InputError(
            "model", model_id, f"its weights take {_gb(stored)} GB; RANKLAB_MAX_MODEL_GB allows {_gb(allowed)}"
        )
    if missing and missing > disk:
        raise InputError(
            "model", model_id, f"its files take {_gb(missing)} GB, and the disk has room for {_gb(max(0, disk))} GB"
        )
    if loaded > memory:
        raise InputError(
            "model",
            model_id,
            f"its weights take {_gb(loaded)} GB as float32; this machine has {_gb(memory)} GB of memory",
        )
    config = files["config.json"]
    if config > MAX_CONFIG_BYTES:
        raise InputError("model", model_id, f"its config.json has {config} bytes, more than any config takes")


def _most_bytes() -> float | None:
    """The owner's own limit on the weights, in bytes.

    Raises:
        InputError: it is no number.
    """
    given = os.environ.get("RANKLAB_MAX_MODEL_GB", "").strip()
    if not given:
        return None
    try:
        return float(given) * GB
    except ValueError:
        raise InputError("RANKLAB_MAX_MODEL_GB", given, "it must be a number of gigabytes") from None


def _gb(size: float) -> str:
    return f"{size / GB:,.1f}" if size < 100 * GB else f"{size / GB:,.0f}"


def _free_disk() -> int:
    folder = cache_folder()
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _memory() -> int:
    """Bytes of memory, a container's limit included."""
    import psutil

    total = int(psutil.virtual_memory().total)
    for file in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            total = min(total, int(file.read_text()))
        except (OSError, ValueError):
            continue
    return total


def read_json(file: Path, model_id: str) -> dict[str, Any]:
    """A JSON file of a model.

    Raises:
        InputError: it cannot be read or asks for code of the repository.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise InputError("model", model_id, f"its {file.name} cannot be read")
    if "auto_map" in values:
        raise InputError("model", model_id, f"its {file.name} asks for Python code (auto_map), which is never run")
    return values


def download(model: HubModel, model_id: str, progress: Progress | None = None) -> Path:
    """The folder with all files of the model, downloaded where they are missing.

    Small files come first; where one of them asks for code, the weights are left.

    Raises:
        InputError: the Hub gives no or a final answer, or a file asks for code.
    """
    if model.folder is not None:
        return model.folder
    remove_leftovers(model.hub)
    meter = Meter(model.hub.repository, sum(model.files.values()), progress)
    for name, size in model.files.items():
        meter.begin(size)
        try:
            file = attempted(model_id, partial(fetch_file, model.hub, model.commit, name, meter), said=meter.say)
        except HubUnavailable as error:
            allowed = f"{error} ({name}); files that have arrived are kept, so start again later"
            raise InputError("model", model_id, allowed) from None
        if name in (*CONFIGS, "tokenizer_config.json"):
            read_json(file, model_id)
    note_commit(model.hub, model.commit)
    return snapshot(model.hub, model.commit)
