"""Trained miniatures written in every format, and a fresh process that loads what Hugging Face's libraries load.

python -m tests.export.trips FOLDER    loads every `*/peft` and `*/merged` below it, prints one JSON object
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file


def as_trained(attached, method_id: str, options=None, seed: int = 7):
    """An attachment that has trained, as exports take it."""
    from peft_core.export.recipe import ModelFacts, Recipe, Trained
    from peft_core.methods import resolve
    from peft_core.records import MethodSpec
    from peft_core.training.native import TaskFacts
    from tests.methods.test_contract import OPTIONS

    backbone = attached.backbone
    config = resolve(MethodSpec(id=method_id, options=OPTIONS.get(method_id, {}) | (options or {})))
    facts = TaskFacts(
        id="toy",
        problem=backbone.problem,
        outputs=backbone.outputs,
        labels=("a", "b", "c") if backbone.problem == "classification" else None,
        metric="accuracy",
    )
    recipe = Recipe(
        model=ModelFacts(origin="local", id=backbone.id),
        method=method_id,
        config=config.model_dump(),
        seed=seed,
        tasks=(facts,),
    )
    return Trained(recipe, config, attached)


def load_all(folder: Path) -> dict[str, Any]:
    """By path of an adapter or a merged model: greatest distance of its logits, whatever was said, unused keys."""
    import peft
    import torch
    import transformers

    settings = json.loads((folder / "settings.json").read_text())
    batch = load_file(folder / "batch.safetensors")
    if "decoder_input_ids" in settings:
        batch["decoder_input_ids"] = torch.tensor(settings["decoder_input_ids"])
    auto, found = getattr(transformers, settings["auto"]), {}
    options = {"attn_implementation": settings["attention"]}
    for written in sorted(path for path in folder.glob("*/*") if path.name in ("peft", "merged")):
        expected = load_file(written.parent / "expected.safetensors")
        with warnings.catch_warnings(record=True) as said, torch.no_grad():
            warnings.simplefilter("always")
            if written.name == "peft":
                base = auto.from_pretrained(folder / "base", **options).eval()
                model = peft.PeftModel.from_pretrained(base, written).eval()
            else:
                model = auto.from_pretrained(written, **options).eval()
            logits = answer(model, batch, settings)
        found[f"{written.parent.name}/{written.name}"] = {
            "distance": float((logits - expected["logits"]).abs().max()),
            "moved": float((logits - expected["base"]).abs().max()),
            "said": [str(warning.message) for warning in said if not issubclass(warning.category, FutureWarning)],
            "unused": unused_keys(model, written) if written.name == "peft" else [],
        }
    return found


def unused_keys(model, written: Path) -> list[str]:
    """Tensors of the file that the model does not hold, and the other way round."""
    import peft

    stored = load_file(written / "adapter_model.safetensors")
    return sorted(stored.keys() ^ peft.get_peft_model_state_dict(model, save_embedding_layers=False).keys())


def answer(model, batch, settings):
    """The logits that the backbone's own `logits` gives for the batch."""
    import torch

    output = model(**batch)
    if settings["problem"] == "span":
        return torch.stack((output.start_logits, output.end_logits), dim=-1)
    if settings["label_tokens"]:
        return output.logits[:, 0][:, settings["label_tokens"]]
    return output.logits


def save_batch(folder: Path, backbone, batch) -> None:
    """The base model, a batch, and how its logits are asked for."""
    words = backbone.problem == "classification" and not backbone.head
    settings = {
        "auto": backbone.architecture.task(backbone.problem).auto_model,
        "attention": backbone.architecture.attention or "sdpa",
        "problem": backbone.problem,
        "label_tokens": list(backbone.label_tokens) if words else [],
    }
    if words:
        rows = len(batch["input_ids"])
        settings["decoder_input_ids"] = [[backbone.decoder_start_token]] * rows
    folder.mkdir(parents=True)
    backbone.model.save_pretrained(folder / "base")
    save_file(batch, folder / "batch.safetensors")
    (folder / "settings.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    print(json.dumps(load_all(Path(sys.argv[1]))))
