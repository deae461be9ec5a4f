"""What a dataset on disk is: splits found by its publisher's names, each image with its label, in a defined order."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from allweather.classes import CITYSCAPES, ClassSet
from allweather.data.datasets.encodings import train_ids
from allweather.data.folder import natural_key
from allweather.data.images import read_rgb
from allweather.data.stream import Frame, Stream
from allweather.errors import AllWeatherError, unknown

Rule = tuple[str, str]  # a regular expression over an image's path below the root, and what it becomes
Decoder = Callable[[Path], np.ndarray]  # a label file → H×W class indices, −1 where nothing counts


@dataclass(frozen=True)
class Split:
    """Where a split's images lie and how their labels are named.

    Attributes:
        images: glob patterns below the root; the first that finds anything counts.
        labels: rules from image to label, the first whose file exists counts; empty where labels are not public.
        invalid: rules from image to the mask of pixels whose class cannot be seen.
        listed: a text file of image paths, one a line, that takes the place of `images`.
        count: images as published; None where the publisher's number is not certain.
    """

    images: tuple[str, ...]
    labels: tuple[Rule, ...] = ()
    invalid: tuple[Rule, ...] = ()
    listed: str | None = None
    count: int | None = None


@dataclass(frozen=True)
class Sample:
    """One image of a split: its name below the root, and its files."""

    name: str
    image: Path
    label: Path | None
    invalid: Path | None


@dataclass(frozen=True)
class Dataset:
    """A dataset in its publisher's layout.

    Attributes:
        name: as the command line takes it.
        title: as the literature calls it.
        publisher: where it is offered; nothing is ever downloaded.
        terms: of use.
        splits: by name; `default` is the one evaluated when none is named.
        places: folders below the root, usually named after an archive, in which the layout may begin.
        decoder: given the root, what reads its label files.
        notes: what a reader of its figures must know.
    """

    name: str
    title: str
    publisher: str
    terms: str
    splits: Mapping[str, Split]
    default: str = "val"
    places: tuple[str, ...] = ()
    classes: ClassSet = CITYSCAPES
    decoder: Callable[[Path], Decoder] = field(default=lambda root: train_ids)
    notes: str = ""

    def split(self, name: str | None) -> Split:
        """The split of that name, or the default one.

        Raises:
            AllWeatherError: when there is none.
        """
        name = name or self.default
        if name not in self.splits:
            raise unknown(f"split of {self.name}", name, self.splits)
        return self.splits[name]

    def samples(self, root: Path, split: str | None = None) -> list[Sample]:
        """The images of a split with their label files, in natural order of their paths, or in the list's order.

        Raises:
            AllWeatherError: when nothing is found; the message says what was looked for and who offers it.
        """
        chosen = self.split(split)
        found = self.find(root, chosen)
        if not found:
            sought = ", ".join(([chosen.listed] if chosen.listed else []) + list(chosen.images))
            raise AllWeatherError(
                f"no image of {self.title} ({split or self.default}) in {root}: looked for {sought}. "
                f"It is offered at {self.publisher}."
            )
        return found

    def find(self, root: Path, split: Split) -> list[Sample]:
        """As `samples`, but empty where nothing is there."""
        paths = self._listed(root, split.listed) if split.listed else {}
        paths = paths or self._globbed(root, split.images)
        bases = self._bases(root)
        return [
            Sample(
                name=Path(relative).with_suffix("").as_posix(),
                image=path,
                label=_counterpart(relative, split.labels, bases),
                invalid=_counterpart(relative, split.invalid, bases),
            )
            for relative, path in paths.items()
        ]

    def stream(self, root: Path, split: str | None = None, size: tuple[int, int] | None = None) -> Stream:
        """The frames of a split, without labels.

        Raises:
            AllWeatherError: when nothing is found.
        """
        images = {sample.name: sample.image for sample in self.samples(root, split)}

        def read(name: str) -> Frame:
            image, stored = read_rgb(images[name], size)
            return Frame(name, image, stored, images[name])

        return Stream(list(images), read)

    def _bases(self, root: Path) -> list[Path]:
        return [root, *(root / place for place in self.places if (root / place).is_dir())]

    def _globbed(self, root: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
        for pattern in patterns:
            found = {
                path.relative_to(base).as_posix(): path for base in self._bases(root) for path in base.glob(pattern)
            }
            if found:
                return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))
        return {}

    def _listed(self, root: Path, listed: str) -> dict[str, Path]:
        for base in self._bases(root):
            if (base / listed).is_file():
                lines = (line.strip() for line in (base / listed).read_text().splitlines())
                return {line.removeprefix("./"): base / line for line in lines if line}
        return {}


def _counterpart(relative: str, rules: tuple[Rule, ...], bases: list[Path]) -> Path | None:
    """The first existing file that a rule makes of an image's path."""
    for pattern, replacement in rules:
        made, changed = re.subn(pattern, replacement, relative)
        existing = [base / made for base in bases if changed and (base / made).is_file()]
        if existing:
            return existing[0]
    return None
