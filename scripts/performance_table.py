"""Writes the README's table of speed and memory from the JSON files of assets/benchmarks.

    python scripts/performance_table.py

The files come from `python -m peft_core bench --what step|memory|plan|rank|page|app --out FILE`,
`scripts/bench_scaling.py` and `scripts/bench_gpu.sh`. A file that is not there is named as not
measured; a dry run is no measurement.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
BEGIN, END = "<!-- speed: written by scripts/performance_table.py -->", "<!-- end of speed -->"
PEERS = ("peft ", "hugging face", "trainer", "plain copies")
"""How labels of what others made begin or are known."""
HEAD = ("what", "measured", "of the reference", "of the floor")
Document = Mapping[str, Any]


class Line(NamedTuple):
    """One line of the table. ratio: by the reference's figure; floor: by that of the frozen backbone."""

    what: str
    figure: str
    ratio: float | None = None
    floor: float | None = None


class Part(NamedTuple):
    """What one file says. faster: sentences on where a peer is ahead."""

    title: str
    lines: list[Line]
    faster: list[str]


def is_peer(label: str) -> bool:
    return any(name in label.lower() for name in PEERS)


def step_part(document: Document) -> Part:
    rows = document["rows"]
    lines = [
        Line(row["label"], _ms(row["step_ms_median"]), row.get("step_vs_reference"), row.get("step_vs_floor"))
        for row in rows
    ]
    title = f"A step on {document['model']}, {document['tokens']} tokens a row, fp32; reference {document['reference']}"
    return Part(title, lines, _ahead(rows, "step_ms_median", "a step"))


def memory_part(document: Document) -> Part:
    rows = document["rows"]
    lines = [Line(row["label"], _memory(row), row.get("peak_vs_reference")) for row in rows]
    title = f"Peak memory of a step on {document['model']} beyond weights, masks and moments"
    if plain := document.get("plain_over_ours"):
        title += (
            f"; plain copies at d = {plain['d']} cost {plain['cost_above_floor']:.2f} times as much above the floor, "
            f"with {plain['adapter_bytes']:.2f} times the adapter's and {plain['optimizer_bytes']:.2f} times the "
            "optimizer's bytes"
        )
    return Part(title, lines, _ahead(rows, "peak_bytes", "memory"))


def _memory(row: Mapping[str, Any]) -> str:
    above = row.get("ms_above_floor")
    return f"{row['peak_bytes'] / 2**20:.1f} MiB" + (f", {above:.1f} ms above the floor" if above is not None else "")


def plan_part(document: Document) -> Part:
    rows = document["rows"]
    lines = [Line(row["label"], f"{row['seconds_median']:.1f} s", row.get("ratio")) for row in rows]
    title = f"A comparison of {document.get('runs', 8)} runs on {document.get('model', 'an embedded model')}"
    return Part(title, lines, _ahead(rows, "seconds_median", "a comparison"))


def rank_part(document: Document) -> Part:
    lines = [
        Line(row["label"], _ms(row["ms_median"]))
        for row in document["rows"]
        if row["label"] in ("SVD of the update", "from its factors")
    ]
    often = f"{document['svd_over_factors']:.0f} times as fast, {100 * document['share_of_training']:.2f} % of training"
    return Part(f"Rank of an update of {document['shape'][0]} x {document['shape'][1]}: {often}", lines, [])


def scaling_part(document: Document) -> Part:
    lines = [
        Line(
            entry["title"],
            f"{entry['line']['intercept']:.1f} ms + {entry['line']['slope']:.3g} ms each, R² {entry['line']['r2']:.3f}",
        )
        for entry in document["axes"]
    ]
    width = document["model"]["hidden_size"]
    title = f"How a step grows, width {width} ([table and chart](assets/benchmarks/scaling.md))"
    return Part(title, lines, [])


def page_part(document: Document) -> Part:
    """Medians, and the worst; a bar with whether the median is below it."""
    lines = []
    for row in document["rows"]:
        said = {True: "holds", False: "**does not hold**"}.get(row["holds"])
        bar = f"; bar {row['bar']:g} {row['unit']} {said}" if said else ""
        figure = f"{row['median']:.3g} {row['unit']}, at worst {row['worst']:.3g}{bar}"
        times = "once" if row["repeats"] == 1 else f"{row['repeats']} times"
        lines.append(Line(f"{row['measurement']}, {times}", figure))
    title = "The page's time bars, medians"
    if browser := document.get("browser"):
        title += f"; Chromium {browser}"
    if left_out := document.get("left_out"):
        title += f"; not measured: {', '.join(left_out['measurements'])}"
    return Part(title, lines, [])


def app_part(document: Document) -> Part:
    """Each figure; a bar with whether the figure is within it."""
    lines = []
    for row in document["rows"]:
        said = {True: "holds", False: "**does not hold**"}.get(row["holds"])
        bar = f"; bar {row['bar']:g} {row['unit']} {said}" if said else ""
        lines.append(Line(row["measurement"], f"{row['value']:.3g} {row['unit']}{bar}"))
    watched = f"{document['viewers']} viewers of the page for {document['duration']} s while two comparisons train"
    return Part(watched, lines, [])


def gpu_part(document: Document) -> Part:
    lines, faster = [], []
    for name, found in document.items():
        if name.startswith("steps "):
            model = name.removeprefix("steps ")
            for row in found["lines"]:
                share = f", {100 * row['fraction_of_peak']:.0f} % of peak" if row.get("fraction_of_peak") else ""
                what = f"{model}: {row['label']}"
                lines.append(Line(what, _ms(row["step_ms_median"]) + share, row["step_vs_reference"]))
            faster += _ahead(found["lines"], "step_ms_median", f"a step on {model}")
        if name.startswith("lockstep "):
            model = name.removeprefix("lockstep ")
            for row in found["lines"]:
                figure = f"{row['run_steps_per_second']:.1f} steps/s"
                lines.append(Line(f"{model}, {found['runs']} runs: {row['label']}", figure, row["vs_trainer"]))
    peak = f"bf16 products reach {document['peak']['tflops']:.0f} TFLOP/s"
    return Part(f"On a GPU, bf16 (steps/s of all runs: times the Trainer's); {peak}", lines, faster)


PARTS: dict[str, Callable[[Document], Part]] = {
    "step": step_part,
    "memory": memory_part,
    "memory_rank_32": memory_part,
    "plan": plan_part,
    "rank": rank_part,
    "scaling": scaling_part,
    "page": page_part,
    "app": app_part,
    "gpu": gpu_part,
}


def _ahead(rows: list[dict[str, Any]], key: str, what: str) -> list[str]:
    """A sentence for each of ours that a peer does better, naming the best peer."""
    known = [row for row in rows if row.get(key) is not None]
    peers = [row for row in known if is_peer(row["label"])]
    if not peers:
        return []
    best = min(peers, key=lambda row: row[key])
    return [
        f"{what}: `{best['label']}` is ahead of `{row['label']}`, which takes {row[key] / best[key]:.3f} times as much"
        for row in known
        if not is_peer(row["label"]) and round(row[key] / best[key], 3) > 1
    ]


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def section(documents: Mapping[str, Document]) -> str:
    """The Markdown between the two markers, from the documents that there are."""
    lines: list[str] = []
    faster: list[str] = []
    for name, make in PARTS.items():
        if name not in documents:
            continue
        part = make(documents[name])
        faster += part.faster
        source = f"[From its file](assets/benchmarks/{name}.json)"
        lines += [f"**{part.title}.** {source}, {_measured_on(documents[name]['environment'])}", ""]
        columns = [0, 1, *(n for n in (2, 3) if any(line[n] is not None for line in part.lines))]
        lines += [f"| {' | '.join(HEAD[n] for n in columns)} |", f"|{'---|' * len(columns)}"]
        for line in part.lines:
            cells = ["" if value is None else f"{value:.3f}" if n > 1 else value for n, value in enumerate(line)]
            lines.append(f"| {' | '.join(str(cells[n]) for n in columns)} |")
        lines.append("")
    if faster:
        lines += ["Where a peer is ahead:", "", *(f"- {sentence}." for sentence in faster), ""]
    elif any(is_peer(str(row.get("label", ""))) for document in documents.values() for row in _all_rows(document)):
        lines += ["In none of these is a peer ahead.", ""]
    if missing := [name for name in PARTS if name not in documents]:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    return "\n".join(lines)


def _all_rows(document: Document) -> list[dict[str, Any]]:
    rows = list(document["rows"]) if isinstance(document.get("rows"), list) else []
    return rows + [row for found in document.values() if isinstance(found, dict) for row in found.get("lines", [])]


def _measured_on(where: Document) -> str:
    """Machine and versions, as a sentence."""
    names = ("torch", "transformers", "peft", "triton")
    versions = ", ".join(f"{name} {where['versions'][name]}" for name in names if name in where["versions"])
    threads = f", {where['threads']} of {where['cores']} cores" if where["device"] == "cpu" else ""
    return f"on {where['device_name']}{threads}; {versions}."


def read(folder: Path) -> dict[str, Document]:
    """The documents of a folder, by name; without those of a dry run."""
    found = {name: folder / f"{name}.json" for name in PARTS}
    documents = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.exists()}
    return {name: document for name, document in documents.items() if not document.get("dry_run")}


def rewritten(readme: str, documents: Mapping[str, Document]) -> str:
    """A README with its section made again.

    Raises:
        SystemExit: one of the two markers is not there.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md must hold the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{section(documents)}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the README's table of speed and memory.")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--folder", type=Path, default=ROOT / "assets" / "benchmarks")
    options = parser.parse_args()
    text = rewritten(options.readme.read_text(encoding="utf-8"), read(options.folder))
    options.readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
