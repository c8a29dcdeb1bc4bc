"""The model card of an exported adapter: what it is, how it scored, what it was made of, how to load it."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from peft_core import __version__
from peft_core.export.finished import FinishedRun, Spread
from peft_core.export.names import public_name, public_sentence, public_value
from peft_core.export.recipe import Trained
from peft_core.methods import Method, get_method, method_of_part

Format = Literal["native", "peft", "merged"]
CURVE = "curve.svg"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def model_card(finished: FinishedRun, trained: Trained, kind: Format) -> str:
    """README.md: front matter for the Hub, then plain sections. Texts of others stand in code, as text."""
    method, model = get_method(trained.recipe.method), public_name(trained.recipe.model.id)
    sections = [
        _front_matter(finished, trained, kind),
        f"# {method.title} on {model}",
        f"{_what(kind)} {_origin(finished, method)}",
        _scores(finished),
        f"![{finished.metric} over steps]({CURVE})",
        _figures(finished),
        "## How to load it",
        _loading(trained, kind, model),
        "## Configuration",
        _block(public_value(_configuration(finished))),
        "## Data",
        f"{_plain(public_sentence(finished.result.split))}.",
        _block(public_value(finished.view.comparison.environment.get("data", {}))),
        "## Environment",
        _block(public_value(finished.environment())),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def tags(trained: Trained, kind: Format) -> list[str]:
    """What the Hub finds it by."""
    method = get_method(trained.recipe.method)
    found = ["ranklab", "parameter-efficient-fine-tuning", method.id, method.family, trained.backbone.problem]
    pair = kind == "peft" and method.family == "low-rank"
    return found + ([method_of_part("yardstick").id] if pair else [])


def _front_matter(finished: FinishedRun, trained: Trained, kind: Format) -> str:
    model, library = trained.recipe.model, {"native": "ranklab", "peft": "peft", "merged": "transformers"}[kind]
    values: dict[str, Any] = {"library_name": library, "tags": tags(trained, kind)}
    if model.commit is not None and _REPOSITORY.fullmatch(model.id):
        values["base_model"] = model.id
        values["base_model_relation"] = "finetune" if kind == "merged" else "adapter"
    values["metrics"] = [spread.metric for spread in finished.scores()]
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---"])


def _origin(finished: FinishedRun, method: Method) -> str:
    task, seed = _code(_tasks(finished)), finished.row.seed
    if (name := finished.imported) is not None:
        trained = "" if finished.result.steps == 0 else f" Trained with seed {seed}."
        return f"{method.title} ({method.source}) on {task}; RankLab {__version__} read it from {_code(name)}.{trained}"
    return f"Trained with {method.title} ({method.source}) on {task}, seed {seed}, by RankLab {__version__}."


def _what(kind: Format) -> str:
    return {
        "native": "An adapter in RankLab's own format.",
        "peft": "An adapter in the format of Hugging Face PEFT.",
        "merged": "A backbone with the learned update merged into its weights.",
    }[kind]


def _scores(finished: FinishedRun) -> str:
    rows = [
        f"| {_code(spread.metric)} | {_number(spread.score)} | {_spread(spread)} | {spread.n} |"
        for spread in finished.scores()
    ]
    base = finished.result.baseline_score
    said = f"A model that ignores its input scores {_number(base)}." if base is not None else ""
    head = ["## Scores", "", "| metric | this run | mean ± std over seeds | n |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, "", said]).rstrip()


def _spread(spread: Spread) -> str:
    if spread.mean is None:
        return "-"
    return f"{spread.mean:.4g} ± {spread.std:.2g}" if spread.std is not None else f"{spread.mean:.4g}, one seed"


def _figures(finished: FinishedRun) -> str:
    result = finished.result
    begun = result.begun_from
    lines = [
        *([f"- began with what the run {_plain(begun)} had learned"] if begun else []),
        f"- {result.trainable:,} trained parameters ({result.trainable_percent:.3g} % of the backbone), and "
        f"{result.head_parameters:,} of the head",
        f"- stored in the native format: {result.stored_bytes:,} bytes, and {result.head_bytes:,} of the head",
    ]
    if result.rank is not None and result.rank_of == "delta":
        effective, numerical = result.rank["effective_mean"], result.rank["numerical_mean"]
        lines.append(f"- rank of the update, mean over layers: {numerical:.4g} numerical, {effective:.4g} effective")
    return "\n".join(lines)


def _loading(trained: Trained, kind: Format, model: str) -> str:
    auto, facts = trained.backbone.architecture.task(trained.backbone.problem), trained.facts
    assert auto is not None
    labelled = f", num_labels={facts.outputs}" if trained.backbone.head and facts.problem != "span" else ""
    base, where = _base(trained, model)
    if kind == "peft":
        lines = [
            "from peft import PeftModel",
            f"from transformers import {auto.auto_model}",
            "",
            f"model = {auto.auto_model}.from_pretrained({base}{labelled}){where}",
            *_padding(trained),
            "model = PeftModel.from_pretrained(model, FOLDER)",
        ]
    elif kind == "merged":
        lines = [
            f"from transformers import {auto.auto_model}",
            "",
            f"model = {auto.auto_model}.from_pretrained(FOLDER)",
        ]
    else:
        lines = [
            "from pathlib import Path",
            "",
            "from peft_core.export.native import load_native",
            "",
            "trained = load_native(Path(FOLDER))",
            "with trained.attached.active():",
            "    logits = trained.attached.logits(batch)",
        ]
    words = ""
    if trained.words_only and facts.labels is not None:
        listed = _code(", ".join(facts.labels))
        words = f"\n\nThe classes are the first tokens of {listed}, scored at the decoder's first position."
    return "```python\n" + "\n".join(lines) + "\n```" + words


def _padding(trained: Trained) -> list[str]:
    """The padding that a decoder was trained with: its head reads the last token before it."""
    decoder = trained.backbone.architecture.pooling == "last" and trained.facts.problem == "classification"
    token = getattr(trained.backbone.config, "pad_token_id", None)
    return [f"model.config.pad_token_id = {token}"] if decoder and token is not None else []


def _base(trained: Trained, model: str) -> tuple[str, str]:
    """What the backbone's weights are loaded from, and a comment where only some people have them."""
    facts = trained.recipe.model
    if facts.commit is not None:
        return f"{json.dumps(model)}, revision={json.dumps(facts.commit)}", ""
    if facts.origin == "embedded":
        return json.dumps(f"assets/models/{model}"), "  # ships with RankLab"
    return json.dumps(model), "  # the folder it was trained on"


def _configuration(finished: FinishedRun) -> dict[str, Any]:
    spec, plan = finished.view.comparison.spec, finished.view.comparison.plan
    found = {
        "method": finished.row.method.id,
        "options": finished.row.config,
        "seed": finished.row.seed,
        "model": spec.model,
        "task": spec.task,
        "task_options": spec.task_options,
    }
    if finished.imported is not None:  # how it was trained is not known
        return found
    return found | {
        "data_seed": spec.data_seed,
        "learning_rate": finished.result.learning_rate,
        "training": spec.training.model_dump(exclude={"learning_rate"}),
        "plan": {name: value for name, value in plan.items() if name != "memory_bytes"},
    }


def _tasks(finished: FinishedRun) -> str:
    return "+".join(public_name(part) for part in finished.view.comparison.spec.task.split("+"))


def _block(value: Any) -> str:
    return "```json\n" + json.dumps(value, indent=2, ensure_ascii=False).replace("```", "'''") + "\n```"


def _code(text: str) -> str:
    """Inline code: whatever it holds is shown as text."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "/")
    return f"`{plain}`"


def _plain(text: str) -> str:
    """A sentence of ours that may quote a name of the user's."""
    return re.sub(r"([\\`*_<>|\[\]#])", r"\\\1", " ".join(text.split()))


def _number(value: float | None) -> str:
    return f"{value:.4g}" if value is not None else "-"
