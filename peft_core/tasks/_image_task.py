"""A task of image classification whose images are files or the rows of a Hub data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from peft_core.records import InputError
from peft_core.tasks._contract import Rows, Split, TaskInfo
from peft_core.tasks._images import ImageSource
from peft_core.tasks._memory import remembered
from peft_core.tasks._pixels import SMALLEST_SIDE, BadImage, common_side, pixels, size_of
from peft_core.tasks._splits import held_out, said_of_defaults, shuffled
from peft_core.tasks._stream import check_count, check_options

MAX_BYTES = 4 * 2**30
"""Of the pixels of one split."""
DEFAULT_TRAIN, DEFAULT_EVAL = 5_000, 1_000
LOOKED_AT = 64
"""Images whose headers decide the common size."""


@dataclass(frozen=True)
class ImageDescription:
    """What an image task says of itself beyond what its files tell."""

    id: str
    title: str
    origin: str
    license: str
    protocol: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Pictures:
    """The parts of an image source: row numbers in each, and the side that all images are brought to."""

    source: ImageSource
    parts: Mapping[str, tuple[str, np.ndarray]]
    side: int
    said: str


class ImageTask:
    """Images at one common size: square, the middle of each, the side the median shorter side but at most 224.

    Args:
        opened: opens the source; may raise an InputError.
        bound: options that `info` is for.
    """

    teacher = None

    def __init__(self, about: ImageDescription, opened: Callable[[], ImageSource], bound: Mapping[str, Any]) -> None:
        self._about, self._opened, self._bound = about, opened, dict(bound)

    @property
    def options(self) -> Mapping[str, Any]:
        """What it takes, with its defaults."""
        return self._about.options

    def _chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        check_options(options, self._about.options)
        chosen = {**self._about.options, **options}
        size, share, seed = chosen["image_size"], chosen["eval_share"], chosen["split_seed"]
        if size is not None and (type(size) is not int or not SMALLEST_SIDE <= size <= 512):
            raise InputError("task_options.image_size", size, f"it must be a whole number from {SMALLEST_SIDE} to 512")
        if type(share) not in (int, float) or not 0 < share < 1:
            raise InputError("task_options.eval_share", share, "it must be a number between 0 and 1")
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise InputError("task_options.split_seed", seed, "it must be a whole number from 0 to 2^63 - 1")
        if type(chosen["drop_bad"]) is not bool:
            raise InputError("task_options.drop_bad", chosen["drop_bad"], "it must be true or false")
        return chosen

    def pictures(self, options: Mapping[str, Any]) -> Pictures:
        """The source and its parts; remembered while the source stays as it is."""
        chosen = self._chosen(options)
        source = self._opened()
        key = (self._about.id, source.key(), *sorted(chosen.items(), key=str))
        return remembered(key, lambda: self._pictures(source, chosen))

    def _pictures(self, source: ImageSource, chosen: Mapping[str, Any]) -> Pictures:
        parts, said = self._divided(source, chosen)
        return Pictures(source, parts, chosen["image_size"] or _side(source), said)

    def _divided(
        self, source: ImageSource, chosen: Mapping[str, Any]
    ) -> tuple[Mapping[str, tuple[str, np.ndarray]], str]:
        """Row numbers of training and evaluation, and how they were made."""
        rows = np.arange(len(source.classes("train")))
        if "eval" in source.parts:
            return {"train": ("train", rows), "eval": ("eval", np.arange(len(source.classes("eval"))))}, ""
        seed, share = chosen["split_seed"], chosen["eval_share"]
        train, held = held_out(rows, hashes(source, "train"), source.classes("train"), seed, share)
        said = f"{share:.0%} of the images of every class are held out by a hash of their name (split_seed {seed})"
        return {"train": ("train", train), "eval": ("train", held)}, said

    def _some(self, source: ImageSource, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
        """`count` of the training images, drawn by a hash of their names."""
        return shuffled(rows, hashes(source, "train"), seed, "protocol")[:count]

    @cached_property
    def info(self) -> TaskInfo:
        """What the images are, for the options that the task was made with."""
        return self._info()

    def _info(self) -> TaskInfo:
        found, about = self.pictures(self._bound), self._about
        most = MAX_BYTES // (found.side**2 * 3)
        train, held = (len(found.parts[part][1]) for part in ("train", "eval"))
        labels = found.source.labels
        left_out = said_of_defaults((train, min(DEFAULT_TRAIN, most)), (held, min(DEFAULT_EVAL, most)))
        size = f"images are brought to {found.side} x {found.side} pixels"
        return TaskInfo(
            id=about.id,
            title=about.title,
            description=f"Which of {len(labels)} classes does the image show?",
            kind="image_classification",
            modality="image",
            metrics=("accuracy",),
            labels=labels,
            outputs=len(labels),
            train_rows=min(train, DEFAULT_TRAIN, most),
            eval_rows=min(held, DEFAULT_EVAL, most),
            max_train_rows=min(train, most),
            max_eval_rows=min(held, most),
            origin=about.origin,
            license=about.license,
            protocol="; ".join(part for part in (about.protocol, found.said, size, left_out) if part),
            options=about.options,
        )

    def check(self, options: Mapping[str, Any]) -> None:
        self.pictures(options)

    def provenance(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Where the images came from."""
        return self.pictures(options).source.origin()

    def rows(self, split: Split, count: int, seed: int, options: Mapping[str, Any]) -> Rows:
        """Decodes the images that are asked for.

        Raises:
            InputError: more than there are; a broken image, by its name (drop_bad=true takes the next one instead).
        """
        found = self.pictures(options)
        part, rows = found.parts[split]
        check_count(f"{split}_rows", count, min(len(rows), MAX_BYTES // (found.side**2 * 3)))
        order = shuffled(rows, hashes(found.source, part), seed, split).tolist()
        classes = found.source.classes(part)
        drop = self._chosen(options)["drop_bad"]
        images = np.empty((count, found.side, found.side, 3), dtype=np.uint8)
        labels = np.empty(count, dtype=np.int64)
        done = 0
        for row, data in zip(order, found.source.read(part, order if drop else order[:count]), strict=False):
            try:
                images[done] = pixels(data, found.side)
            except BadImage as error:
                if not drop:
                    name = found.source.names(part)[row]
                    raise InputError("task", name, f"{error}; drop_bad=true leaves such images out") from None
                continue
            labels[done] = classes[row]
            done += 1
            if done == count:
                return Rows({"image": images}, labels)
        raise InputError(f"{split}_rows", count, f"only {done} images can be read")


def hashes(source: ImageSource, part: str) -> np.ndarray:
    """uint64 hash of the name of every image of a part."""
    from pandas.util import hash_array

    def make() -> np.ndarray:
        return hash_array(np.array(source.names(part), dtype=object), categorize=False)

    return remembered((source.key(), part, "hashes"), make)


def _side(source: ImageSource) -> int:
    count = len(source.classes("train"))
    rows = np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(int).tolist()
    sizes = []
    for data in source.read("train", rows):
        try:
            sizes.append(size_of(data))
        except BadImage:
            continue
    if not sizes:
        raise InputError("task", source.name, f"none of {len(rows)} images looked at can be read")
    return common_side(sizes)


def broken(source: ImageSource, part: str, rows: list[int], side: int) -> list[tuple[str, str]]:
    """Name and fault of the images among `rows` that cannot be decoded."""
    names, found = source.names(part), []
    for row, data in zip(rows, source.read(part, rows), strict=True):
        try:
            pixels(data, side)
        except BadImage as error:
            found.append((names[row], str(error)))
    return found
