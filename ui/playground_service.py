"""What the playground asks for, as plain functions over `peft_core.playground`. No gradio here, no HTTP.

Pairs and made targets need torch and the methods alone, so they wait for no other part of the engine; only the update
of a run loads a model, and takes the engine for itself meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_core.records import InputError, RunState, View, checked
from peft_core.report.palette import look
from peft_core.runs import home
from peft_core.runs.folders import comparison_folder, comparison_of, unknown
from ui.engine import Engine
from ui.service import Runs

if TYPE_CHECKING:
    from torch import Tensor

    from peft_core.playground import Curves, Target

MOST_COMPARISONS = 20
"""The newest ones whose runs are offered as targets."""
LOOKED_AT = 200
"""Comparisons among which they are looked for, the newest."""
CACHED = 256


def adapter_folder(run: str) -> Path:
    """Where a run of the store keeps its adapter."""
    return comparison_folder(home(), comparison_of(run)[0]) / run / "adapter"


class Playground:
    """The tab's questions.

    Args:
        folder_of: where a run keeps its adapter.
    """

    def __init__(self, runs: Runs, engine: Engine, folder_of: Callable[[str], Path] = adapter_folder) -> None:
        self._runs, self._engine, self._folder_of = runs, engine, folder_of
        self._drawn = lru_cache(CACHED)(self._draw)
        self._updates = lru_cache(1)(self._load)

    def sketch(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The pair that the sliders ask for; `notes` say which values were brought into range."""
        from peft_core.playground import clamped, sketched

        sketch, notes = clamped(values)
        return sketched(sketch) | {"notes": notes}

    def drawn(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The theorem over draws, and the rank by number of branches; kept for who asks again."""
        from peft_core.playground import clamped

        found: dict[str, Any] = self._drawn(clamped(values)[0])
        return found

    @staticmethod
    def _draw(sketch: Any) -> dict[str, Any]:
        from peft_core.playground import drawn

        return drawn(sketch)

    # --- fit a target ---

    def targets(self) -> list[dict[str, str]]:
        """Finished runs of the newest comparisons that trained every parameter, newest first."""
        from peft_core.methods import method_of_part

        method = method_of_part("ceiling").id
        rows = [row for row in self._runs.recent(LOOKED_AT) if method in (spec.id for spec in row.spec.methods)]
        newest = sorted(rows, key=lambda row: row.number, reverse=True)[:MOST_COMPARISONS]
        return [entry for row in newest for entry in _finished(self._runs.view(row.id), method)]

    def sites(self, run: str) -> list[dict[str, Any]]:
        """The maps of a run whose updates can be fitted."""
        return [{"site": site, "shape": list(delta.shape)} for site, delta in self._updates(run).items()]

    def _load(self, run: str) -> dict[str, Tensor]:
        """The run's updates that are small enough to be fitted here."""
        comparison, is_run = comparison_of(run)
        if not is_run:
            raise unknown(run)
        view = self._runs.view(comparison)
        with self._engine.alone():
            from peft_core.export.finished import FinishedRun
            from peft_core.export.updates import updates_of_run
            from peft_core.playground.targets import MOST_VALUES

            found = updates_of_run(FinishedRun.of(view, run, self._folder_of(run)))
        small = {site: delta for site, delta in found.items() if delta.numel() <= MOST_VALUES}
        if not small:
            raise InputError("run", run, f"it has no update of at most {MOST_VALUES:,} values to be fitted here")
        return small

    def curves(self, values: Mapping[str, Any]) -> Curves:
        """The fit that a form asks for: `run` and `site` instead of a made target, the rest as `FitSpec`.

        Raises:
            InputError: it cannot be; the sentence names the field.
        """
        from peft_core.playground import Curves, FitSpec, made_target, ranks_at_equal_parameters

        given = dict(values)
        run, site = given.pop("run", None), given.pop("site", None)
        spec = checked(FitSpec, given)
        if run:
            target = self._target(str(run), str(site or ""))
        else:
            target = made_target(spec.target, spec.size, spec.target_rank, spec.seed)
        pairs = ranks_at_equal_parameters(spec.pairs) if spec.equal else spec.pairs
        return Curves(target, pairs, spec.seed)

    def _target(self, run: str, site: str) -> Target:
        from peft_core.playground import target_of_update

        updates = self._updates(run)
        if site not in updates:
            raise InputError("site", site, f"it must be one of {', '.join(updates)}")
        return target_of_update(f"ΔW of {site}, run {run}", updates[site])


def opening(curves: Curves) -> dict[str, Any]:
    """What is fitted, before the first step, with a look for every method."""
    described = curves.described()
    rows = [row | {"look": vars(look(place))} for place, row in enumerate(described["pairs"])]
    return described | {"pairs": rows}


def points(curves: Curves) -> Iterator[dict[str, Any]]:
    """The curves' points as they come."""
    for step, shares in curves.points():
        yield {"step": step, "captured": [round(share, 5) if math.isfinite(share) else None for share in shares]}


def _finished(view: View, method: str) -> list[dict[str, str]]:
    spec = view.comparison.spec
    return [
        {"run": run.run, "title": f"{run.label}, seed {run.seed}: {spec.task} on {spec.model} ({run.run})"}
        for run in view.runs
        if run.method.id == method and run.state is RunState.FINISHED
    ]
