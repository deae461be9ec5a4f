"""What a dataset on disk is: splits found by its publisher's names, each image with its label, in a defined order."""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from allweather.classes import CITYSCAPES, ClassSet
from allweather.data.datasets.encodings import train_ids
from allweather.data.folder import natural_key, read_frame, told_apart
from allweather.data.stream import Frame, Stream
from allweather.errors import InputError, SettingsError, check_known, first_line
from allweather.pictures.walk import files_matching
from allweather.sizes import check_asked
from allweather.writing import stays_below

Rule = tuple[str, str]  # a regular expression over an image's path below the root, and what it becomes
Decoder = Callable[[Path], np.ndarray]  # a label file → H×W class indices, −1 where nothing counts


@dataclass(frozen=True)
class Split:
    """Where a split's images lie and how their labels are named.

    Attributes:
        images: glob patterns below the root, links followed, hidden names left out; the first that finds any counts.
        labels: rules from image to label, the first whose file exists counts; empty where labels are not public.
        invalid: rules from image to the mask of pixels whose class cannot be seen.
        listed: a text file of image paths, one a line, that takes the place of `images`.
        moved: rules from a listed path to where another release keeps the image, tried where it is not as listed.
        only_labelled: images without a label are not part of the split.
        count: images as published; None where the publisher's number is not certain.
    """

    images: tuple[str, ...]
    labels: tuple[Rule, ...] = ()
    invalid: tuple[Rule, ...] = ()
    listed: str | None = None
    moved: tuple[Rule, ...] = ()
    only_labelled: bool = False
    count: int | None = None

    def __post_init__(self) -> None:
        for kind in ("labels", "invalid", "moved"):
            for rule in _several(f"Split.{kind}", getattr(self, kind)):
                _check_rule(kind, rule)
        for pattern in _several("Split.images", self.images):
            _check_pattern(pattern)
        if self.listed is not None and Path(self.listed).anchor:
            raise SettingsError(f"Split.listed: expected a file below the root, got {self.listed}. Leave out the root.")

    @property
    def sought(self) -> list[str]:
        """What its images are looked for by, below the root."""
        return [*([self.listed] if self.listed else []), *self.images]


def _several(kind: str, given: Any) -> tuple[Any, ...]:
    if not isinstance(given, tuple | list):
        raise SettingsError(f"{kind}: expected a tuple of them, got {given!r}. Write ({given!r},).")
    return tuple(given)


def _check_rule(kind: str, rule: Any) -> None:
    try:
        pattern, replacement = rule
        re.subn(pattern, replacement, "")
    except (re.error, IndexError, TypeError, ValueError) as error:  # IndexError: a group that has no such name
        raise SettingsError(
            f"Split.{kind}: expected rules (regular expression, what it becomes), got {rule!r}: {first_line(error)}."
        ) from error


def _check_pattern(pattern: Any) -> None:
    try:
        next(Path(os.devnull).glob(pattern), None)
    except (AttributeError, IndexError, NotImplementedError, TypeError, ValueError) as error:
        raise SettingsError(
            f"Split.images: expected patterns such as */*.png below the root, got {pattern!r}: {first_line(error)}."
        ) from error


@dataclass(frozen=True)
class Sample:
    """One image of a split.

    Attributes:
        name: path below the root, without suffix; with it, as `a_png`, where two differ in nothing else.
        image: the file.
        label: the file of its label; None where there is none.
        invalid: the file of its mask of pixels whose class cannot be seen; None where there is none.
    """

    name: str
    image: Path
    label: Path | None
    invalid: Path | None


@dataclass(frozen=True)
class Dataset:
    """A dataset in its publisher's layout.

    Attributes:
        name: name on the command line.
        title: name in the literature.
        publisher: where it is offered; nothing is downloaded.
        terms: terms of use.
        splits: the splits by name.
        default: the split that is meant where none is named.
        places: folders below the root, usually named after an archive, in which the layout may begin.
        classes: the class set of its labels.
        decoder: takes the root and gives the function that reads a label file as H×W class indices, −1 for none.
        notes: what a reader of its figures must know.
        reads: what the decoder reads beside labels, as files below the root, or gives it by root and split.
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
    reads: tuple[str, ...] | Callable[[Path, str], list[str]] = ()

    def __post_init__(self) -> None:
        callable(self.reads) or _several("Dataset.reads", self.reads)

    def split(self, name: str | None) -> Split:
        """The split of that name, or the default one.

        Raises:
            AllWeatherError: when there is none.
        """
        name = name or self.default
        check_known(f"split of {self.name}", name, self.splits)
        return self.splits[name]

    def samples(self, root: Path, split: str | None = None) -> list[Sample]:
        """The images of a split with their label files, in natural order of their paths, or in the list's order.

        Args:
            root: the dataset's folder.
            split: name of the split; None is the default one.

        Raises:
            AllWeatherError: when nothing is found, or an image that a list names is absent. The message says what was
                sought and who offers it.
        """
        chosen = self.split(split)
        found, absent = self.find(root, chosen), self.absent(root, chosen)
        if found and absent:
            raise InputError(
                f"{chosen.listed} names {len(found) + len(absent)} images of {self.title}, and {len(absent)} of them "
                f"are not in {root}, e.g. {absent[0]}. It is offered at {self.publisher}."
            )
        if not found:
            sought = ", ".join(chosen.sought)
            raise InputError(
                f"no image of {self.title} ({split or self.default}) in {root}: looked for {sought}. "
                f"{self._elsewhere(root, chosen)}It is offered at {self.publisher}."
            )
        return found

    def _elsewhere(self, root: Path, split: Split) -> str:
        """A hint where `root` is a level or two too deep, or one too high."""
        inside = sorted(path for path in root.iterdir() if path.is_dir())[:50] if root.is_dir() else []
        above = [] if any("**" in pattern for pattern in split.images) else root.absolute().parents[:2]  # not the disk
        for place in (*(path for path in above if path.name), *inside):
            with suppress(InputError, OSError):
                if self.find(place, split):
                    return f"{place} holds it: give that as the root. "
        return ""

    def find(self, root: Path, split: Split) -> list[Sample]:
        """The images of `split` below `root` that exist, with their label files; an empty list where there are none.

        Raises:
            InputError: for an image that a list or a rule names outside `root`: results would be written beside it.
        """
        bases = self._bases(root)
        listed = {line: _existing(line, split.moved, bases) for line in self._listed(root, split)}
        paths = {relative: path for relative, path in listed.values() if path is not None}
        paths = paths if listed else self._globbed(root, split.images)
        for relative in paths:
            if not stays_below(relative):
                raise InputError(f"{self.title}: expected images below {root}, got {relative}. Leave out the root.")
        names = told_apart([(Path(relative).with_suffix("").as_posix(), path) for relative, path in paths.items()])
        found = [
            Sample(
                name=name,
                image=path,
                label=_counterpart(relative, split.labels, bases),
                invalid=_counterpart(relative, split.invalid, bases),
            )
            for name, (relative, path) in zip(names, paths.items(), strict=True)
        ]
        return [sample for sample in found if sample.label is not None or not split.only_labelled]

    def absent(self, root: Path, split: Split) -> list[str]:
        """The images that the list of `split` names and that do not exist below `root`."""
        bases = self._bases(root)
        return [line for line in self._listed(root, split) if _existing(line, split.moved, bases)[1] is None]

    def stream(self, root: Path, split: str | None = None, size: tuple[int, int] | None = None) -> Stream:
        """The frames of a split, without labels.

        Args:
            root: the dataset's folder.
            split: name of the split; None is the default one.
            size: (width, height) in pixels that every frame is resampled to; None keeps each frame's size.

        Raises:
            AllWeatherError: when nothing is found, and for a size that is none.
        """
        size = check_asked(size)
        images = {sample.name: sample.image for sample in self.samples(root, split)}

        def read(name: str) -> Frame:
            return read_frame(name, images[name], size)

        return Stream(list(images), read)

    def _bases(self, root: Path) -> list[Path]:
        return [root, *(root / place for place in self.places if (root / place).is_dir())]

    def _globbed(self, root: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
        for pattern in patterns:
            found = {
                path.relative_to(base).as_posix(): path
                for base in self._bases(root)
                if base.is_dir()
                for path in files_matching(base, [*Path(pattern).parts])
            }
            if found:
                return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))
        return {}

    def _listed(self, root: Path, split: Split) -> list[str]:
        """The lines of the split's list, without repetitions; none where it has no list or the file is not there.

        Raises:
            InputError: for a list that is no text in UTF-8.
        """
        path = self.list_file(root, split)
        if path is None:
            return []
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except UnicodeDecodeError as error:
            raise InputError(f"cannot read the list {path}: expected UTF-8 ({error}).") from error
        return list(dict.fromkeys(line.removeprefix("./") for line in lines if line))

    def list_file(self, root: Path, split: Split) -> Path | None:
        """The list of `split` below `root`; None where it has none or the file is not there."""
        paths = [base / split.listed for base in self._bases(root)] if split.listed else []
        return next((path for path in paths if path.is_file()), None)


def _existing(line: str, moved: tuple[Rule, ...], bases: list[Path]) -> tuple[str, Path | None]:
    """A listed image's path below the root as it is on disk, and its file; None where it is not there."""
    for relative in (line, *(re.sub(*rule, line) for rule in moved)):
        for base in bases:
            if (base / relative).is_file():
                return relative, base / relative
    return line, None


def _counterpart(relative: str, rules: tuple[Rule, ...], bases: list[Path]) -> Path | None:
    """The first existing file that a rule makes of an image's path."""
    for pattern, replacement in rules:
        made, changed = re.subn(pattern, replacement, relative)
        existing = [base / made for base in bases if changed and (base / made).is_file()]
        if existing:
            return existing[0]
    return None
