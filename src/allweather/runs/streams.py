"""Opening what a plan calls a stream: frames for the session, and the truth that only scoring reads."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, count, groupby
from typing import cast

import numpy as np

from allweather.classes import ClassSet
from allweather.data.datasets import DATASETS, find_split
from allweather.data.labelled import LabelledStream, Size, join, labelled_folders, labelled_scenes, labelled_split
from allweather.errors import SettingsError
from allweather.runs.places import resolve
from allweather.runs.plan import PIECE, PlannedRun, StreamSpec, pixels
from allweather.runs.plan_checks import SCENES

_SEEDS = range(500_000, 500_024)  # none of them trained or tuned anything


def open_stream(run: PlannedRun) -> LabelledStream:
    """The stream of a run, thinned and repeated as it says; in the run's order, of a sequence within each part.

    Raises:
        AllWeatherError: when a variable is not set, nothing is found, or an image has no label.
    """
    scale = pixels(run.scoring)
    labelled = _opened(run.stream, pixels(run.model.size or run.scoring)).checked(run.stream.name)
    labelled = in_order(labelled, run)
    return labelled if scale is None else labelled.scored_at(scale)


def list_stream(spec: StreamSpec) -> LabelledStream:
    """The frames of a stream in natural order, whether they have a truth or not; nothing of them is read.

    Raises:
        AllWeatherError: as `open_stream`.
    """
    return _opened(spec, None)


def in_order(labelled: LabelledStream, run: PlannedRun) -> LabelledStream:
    """A stream, given in natural order, in the run's; the parts of a sequence stay in theirs."""
    return labelled.reordered(_order(labelled, run.order, run.seed))


def runs_code(spec: StreamSpec) -> bool:
    """Whether a stream is of a dataset that is none of this package's, whose code runs to open it."""
    pieces = spec.sequence or (spec.name,)
    return spec.root is not None and any(piece.partition(":")[0] not in DATASETS for piece in pieces)


def _opened(spec: StreamSpec, size: Size | None) -> LabelledStream:
    """Each n-th frame of a stream, or of every piece of a sequence."""
    if not spec.sequence:
        return _piece(spec, spec.name, size).every(spec.every)
    pieces = [_whole(spec, piece) for piece in spec.sequence]
    opened = {piece: _piece(spec, piece, size).every(spec.every) for piece in dict.fromkeys(pieces)}
    if len({piece.classes.name for piece in opened.values()}) > 1:
        raise SettingsError(f"stream '{spec.name}': expected pieces whose labels have the same classes.")
    names = _names({piece: _called(spec, piece) for piece in opened})
    return join((part, opened[piece]) for part, piece in _parts(pieces, names, spec.rounds))


def _piece(spec: StreamSpec, piece: str, size: Size | None) -> LabelledStream:
    if spec.procedural:
        return labelled_scenes(piece.removeprefix(SCENES), _SEEDS, size)
    if spec.images is not None and spec.labels is not None:
        images, labels = (resolve(each.replace(PIECE, piece), spec.folder) for each in (spec.images, spec.labels))
        return labelled_folders(images, labels, cast(ClassSet, spec.class_set()), size, spec.labels_as)
    assert spec.root is not None
    dataset, split = find_split(spec.located(piece))
    return labelled_split(dataset, resolve(spec.root, spec.folder), split, size)


def _parts(pieces: Sequence[str], names: Mapping[str, str], rounds: int) -> Iterator[tuple[str, str]]:
    """The parts of a sequence in order, named ROUND/PIECE, each with its piece.

    A piece that comes again within a round gets the next number that no other part has.
    """
    for number in range(1, rounds + 1):
        taken, played = set(names.values()), set[str]()
        for piece in pieces:
            name = _free(names[piece], taken) if piece in played else names[piece]
            taken.add(name)
            played.add(piece)
            yield f"{number:02d}/{name}", piece


def _names(called: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """What the parts of each piece are called, each otherwise; with the dataset only where splits share a name."""
    times, made = Counter(own for _, own in called.values()), dict[str, str]()
    for piece, (dataset, own) in called.items():
        made[piece] = _free(own if times[own] == 1 else f"{dataset}-{own}", made.values())
    return made


def _free(name: str, taken: Collection[str]) -> str:
    """The name, with the first number that makes it one of its own where it is taken."""
    numbered = (f"{name}-{number}" for number in count(2))
    return next(each for each in chain([name], numbered) if each not in taken)


def _called(spec: StreamSpec, piece: str) -> tuple[str, str]:
    """A piece's dataset, '' where it is of none, and what it is called: its weather, folder or split."""
    if spec.root is None:
        return "", piece.removeprefix(SCENES)
    dataset, split = find_split(spec.located(piece))
    return dataset.name, split or dataset.default


def _whole(spec: StreamSpec, piece: str) -> str:
    """A piece with the split that is meant where none is named, so that one piece is spelt in one way."""
    if spec.root is None:
        return piece
    dataset, split = find_split(spec.located(piece))
    return piece if split else f"{piece}:{dataset.default}"


def _order(labelled: LabelledStream, order: str, seed: int) -> list[int]:
    """Indices of the frames in a run's order; the parts of a sequence stay in theirs, each ordered in itself."""
    rng, names = np.random.default_rng(seed), labelled.stream.names
    parts = [list(part) for _, part in groupby(range(len(names)), lambda index: labelled.parts.get(names[index]))]
    if order == "shuffled":
        return [part[index] for part in parts for index in rng.permutation(len(part))]
    return [index for part in parts for index in (part[::-1] if order == "reversed" else part)]
