"""Turns the papers' printed results into the project's own list of quoted figures, with our ids.

    python scripts/quote_results.py ../shared/reference/paper_results.csv

Writes assets/quoted/paper_results.json. A printed method gets our id and the options that its name or its table states;
one that we do not have keeps its printed name alone.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from peft_core.methods import resolve
from peft_core.records import MethodSpec, QuotedFigure
from peft_core.training.checkpoint import write_atomically

OUT = Path(__file__).parents[1] / "assets" / "quoted" / "paper_results.json"
NAMES = (
    (r"full ft|fine-tuning|roberta -base|t5 -(base|3b).*", "full"),
    (r"bitfit", "bitfit"),
    (r"hadapter", "adapter_houlsby"),
    (r"p?adapter", "adapter_pfeiffer"),
    (r"prefix(-tuning)?", "prefix"),
    (r"lora", "lora"),
    (r"lora \(r = (ada|incre)\)", "lora"),
    (r"(random-masking )?capaboost-lora", "capaboost_lora"),
    (r"2:4 sparsity capaboost-lora", "capaboost_lora:masks=2:4"),
    (r"capaboost-padapter", "capaboost_pfeiffer"),
    (r"same-mask-capaboost-padapter", "capaboost_pfeiffer:masks=same"),
    (r"dropout-capaboost-padapter", "capaboost_pfeiffer:masks=dropout"),
    (r"(adalora|increlora|sora|adamix)", r"\1"),
    (r"(r|gm|rm)-lora", r"\1_lora"),
    (r"vpt-deep", "vpt_deep"),
    (r"propetl ?-?lora|propetl lora", "propetl_lora"),
    (r"propetl ?-?p?adapter", "propetl_pfeiffer"),
    (r"propetl ?-?prefix(-tuning)?", "propetl_prefix"),
)
"""Printed names, their sizes and part names taken off, by ours."""
PARTS = {"adapter": "propetl_pfeiffer", "lora": "propetl_lora", "prefix": "propetl_prefix"}
ABLATIONS = {"propetl": "", "propetl random mask": "random_masks=true", "only mask": "share=false"}
ABLATIONS |= {"only share": "learn_masks=false"}
SIZES = {"lora": "rank", "adapter": "bottleneck", "prefix": "length"}
TASKS = {name: f"glue/{name}" for name in ("cola", "sst2", "mrpc", "qqp", "mnli", "qnli", "rte", "stsb", "wnli")}
TASKS |= {"wmt16_ro_en": "wmt16/ro-en"}
VTAB = {
    "cifar-100": "cifar100",
    "flower102": "flowers102",
    "clevr-count": "clevr_count",
    "clevr-dist": "clevr_distance",
}
VTAB |= {"dspr-ori": "dsprites_orientation", "snorb-azim": "snorb_azimuth"}
ABOUT = (
    "trainable_percent", "flops_vs_lora", "params_vs_lora_r8", "trainable_params_millions", "bit_level_storage_percent",
    "inference_params_millions", "rank_of_delta_w", "orthogonality_loss", "d", "rank", "bottleneck",
)  # fmt: skip


def our_method(row: Mapping[str, str]) -> str | None:
    """Our id with the options that the paper states; None for a method that we do not have."""
    name = re.sub(r"\[.*\]", "", row["method"]).strip().lower()
    return _ablation(name) or _named(name, row)


def _ablation(name: str) -> str | None:
    """ProPETL's and IncreLoRA's switches, as the tables of their ablations name them."""
    if found := re.fullmatch(r"(propetl|propetl random mask|only mask, same .*|only share) \((\w+)\)", name):
        ablation = ABLATIONS[found[1].partition(",")[0]]
        return f"{PARTS[found[2]]}:{ablation}" if ablation else PARTS[found[2]]
    if found := re.fullmatch(r"increlora orthogonal=(\w+) advance_learning=(\w+) restart_warmup=(\w+)", name):
        keys = ("advance_learning", "restart_warmup")
        switched = [f"{key}=false" for key, on in zip(keys, found.groups()[1:], strict=True) if on == "no"]
        switched += ["orthogonality=0"] if found[1] == "no" else []
        return "increlora" + (":" + ",".join(switched) if switched else "")
    return None


def _named(name: str, row: Mapping[str, str]) -> str | None:
    """A method with its size, which its name or a column of the table states."""
    options = {key: row[key] for key in ("d", "rank", "bottleneck") if row.get(key)}
    if size := re.search(r"[ (-]+(?:r|bn|l|d)=(\d+)\)?$", name):
        letter = size[0].strip(" (-")[0]
        options["d" if letter == "d" else next(key for part, key in SIZES.items() if part in name)] = size[1]
        name = name[: size.start()].strip()
    ours = next((re.sub(pattern, out, name) for pattern, out in NAMES if re.fullmatch(pattern, name)), None)
    if ours is None:
        return None
    if "capaboost" not in ours:
        options.pop("d", None)
    method = MethodSpec.parse(ours)
    spec = method.model_copy(update={"options": {**options, **method.options}})
    text = str(spec)
    resolve(MethodSpec.parse(text))
    return text


def our_task(task: str) -> str:
    """Our id of a benchmark; a mean over several keeps its printed name."""
    group, colon, name = task.partition(":")
    return f"vtab/{VTAB.get(name, name)}" if colon and name != "average" else TASKS.get(group, task)


def figure(row: Mapping[str, str]) -> QuotedFigure:
    """A line of the list."""
    return QuotedFigure(
        paper=row["paper"],  # type: ignore[arg-type]
        table=row["table"],
        printed=row["method"],
        method=our_method(row),
        model=row["model"],
        task=our_task(row["task"]),
        metric=row["metric"],
        score=float(row["score"]),
        std=float(row["std"]) if row["std"] else None,
        about={name: float(row[name]) for name in ABOUT if row.get(name)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Quote the papers' printed results.")
    parser.add_argument("source", type=Path)
    source = parser.parse_args().source
    with source.open(newline="", encoding="utf-8") as file:
        figures = [figure(row) for row in csv.DictReader(file)]
    document = {
        "command": "python scripts/quote_results.py ../shared/reference/paper_results.csv",
        "what": "results as the papers print them, percentages or correlations times 100; none was measured here",
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "figures": [entry.model_dump(exclude_none=True) for entry in figures],
    }
    rows = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in document.pop("figures"))
    head = json.dumps(document, indent=1, ensure_ascii=False)[:-2]
    write_atomically(OUT, f'{head},\n "figures": [\n{rows}\n ]\n}}\n'.encode())


if __name__ == "__main__":
    main()
