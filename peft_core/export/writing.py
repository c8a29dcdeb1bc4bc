"""One call for all formats: a finished run becomes a folder."""

from __future__ import annotations

from pathlib import Path

from peft_core.export.card import CURVE, Format, model_card
from peft_core.export.curve import curve_svg
from peft_core.export.finished import FinishedRun
from peft_core.export.folders import check_target, new_folder, write_json
from peft_core.export.merge import check_merged, save_merged
from peft_core.export.native import RESULT, save_native
from peft_core.export.peft_format import OWN, check_peft, save_peft
from peft_core.export.prefix_format import obstacle, prefix_fits, save_prefix
from peft_core.export.recipe import Trained, rebuild
from peft_core.methods import get_method
from peft_core.records import InputError


def export_run(
    finished: FinishedRun, kind: Format, to: Path, task: str | None = None, model: str | None = None
) -> Trained:
    """Writes a finished run's adapter with its card to a new folder, all of it or nothing.

    Args:
        kind: native: the smallest, read by this project. peft: for Hugging Face PEFT. merged: a whole model.
        to: a folder that is empty or does not exist.
        task: whose head goes along, where several tasks were trained together; a native folder has all of them.
        model: where the backbone's weights are now, if not where the run had them.

    Raises:
        InputError: the folder is taken, the method has no such format, or the weights cannot be had.
    """
    check_target(to)
    recipe = finished.recipe()
    if kind == "native" and task is None:
        task = recipe.tasks[0].id
    trained = rebuild(recipe, finished.folder, task, model)
    if kind != "native":
        check_format(trained, kind)
    with new_folder(to) as folder:
        if kind == "native":
            save_native(recipe, finished.folder, folder)
            write_json(folder / RESULT, finished.result.model_dump(mode="json", exclude={"resampled"}), small=True)
        else:
            save_format(trained, kind, folder)
            write_json(folder / OWN, recipe.public().model_dump(mode="json"))
        (folder / "README.md").write_text(model_card(finished, trained, kind), encoding="utf-8")
        title = f"{finished.row.label}, seed {finished.row.seed}"
        picture = curve_svg(finished.curve(), finished.metric, title, finished.result.baseline_score)
        (folder / CURVE).write_text(picture, encoding="utf-8")
    return trained


def check_format(trained: Trained, kind: Format) -> None:
    """Refuses a format that the method does not have: InputError."""
    if kind == "merged":
        check_merged(trained)
    elif get_method(trained.recipe.method).family != "prefix":
        check_peft(trained)
    elif (why := obstacle(trained)) is not None:
        raise InputError("format", "peft", f"{trained.recipe.method} cannot be one: {why}; native can be had instead")


def save_format(trained: Trained, kind: Format, folder: Path) -> None:
    """Writes the weights and their configuration in a format of others to a folder that exists.

    Raises:
        InputError: a value is not finite.
    """
    if kind == "merged":
        save_merged(trained, folder)
    elif prefix_fits(trained):
        save_prefix(trained, folder)
    else:
        save_peft(trained, folder)
