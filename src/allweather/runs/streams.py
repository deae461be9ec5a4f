"""Opening what a plan calls a stream: frames for the session, and the truth that only scoring reads."""

from collections.abc import Iterator

import numpy as np

from allweather.data.class_files import find_classes
from allweather.data.datasets import DATASETS, find_split
from allweather.data.labelled import LabelledStream, Size, join, labelled_folders, labelled_scenes, labelled_split
from allweather.errors import SettingsError
from allweather.runs.plan import PIECE, PlannedRun, StreamSpec, pixels
from allweather.runs.plan_checks import SCENES
from allweather.runs.variables import resolve

_SEEDS = range(500_000, 500_024)  # none of them trained or tuned anything


def open_stream(run: PlannedRun) -> LabelledStream:
    """The stream of a run in the run's order, thinned and repeated as it says.

    Raises:
        AllWeatherError: when a variable is not set, nothing is found, or an image has no label.
    """
    scale = pixels(run.scoring) if run.scoring != "native" else None
    labelled = _opened(run.stream, pixels(run.model.size) or scale).checked(run.stream.name)
    labelled = labelled.reordered(_order(len(labelled.stream), run.order, run.seed))
    return labelled if scale is None else labelled.scored_at(scale)


def runs_code(spec: StreamSpec) -> bool:
    """Whether a stream is of a dataset that is none of this package's, whose code runs to open it."""
    pieces = spec.sequence or (spec.name,)
    return spec.root is not None and any(piece.partition(":")[0] not in DATASETS for piece in pieces)


def _opened(spec: StreamSpec, size: Size | None) -> LabelledStream:
    """Each n-th frame of a stream, or of every piece of a sequence."""
    if not spec.sequence:
        return _piece(spec, spec.name, size).every(spec.every)
    opened = {piece: _piece(spec, piece, size).every(spec.every) for piece in dict.fromkeys(spec.sequence)}
    if len({piece.classes.name for piece in opened.values()}) > 1:
        raise SettingsError(f"stream '{spec.name}': expected pieces whose labels have the same classes.")
    return join({part: opened[piece] for part, piece in _parts(spec)})


def _piece(spec: StreamSpec, piece: str, size: Size | None) -> LabelledStream:
    if spec.procedural:
        return labelled_scenes(piece.removeprefix(SCENES), _SEEDS, size)
    if spec.images is not None and spec.labels is not None:
        images, labels = (resolve(each.replace(PIECE, piece), spec.folder) for each in (spec.images, spec.labels))
        return labelled_folders(images, labels, find_classes(spec.classes, spec.folder), size)
    assert spec.root is not None
    dataset, split = find_split(spec.located(piece))
    return labelled_split(dataset, resolve(spec.root, spec.folder), split, size)


def _parts(spec: StreamSpec) -> Iterator[tuple[str, str]]:
    """The parts of a sequence in order, named ROUND/PIECE, each with its piece.

    A piece that comes again within a round gets a number.
    """
    for number in range(1, spec.rounds + 1):
        for index, piece in enumerate(spec.sequence):
            times = spec.sequence[: index + 1].count(piece)
            yield f"{number:02d}/{_called(spec, piece)}" + (f"-{times}" if times > 1 else ""), piece


def _called(spec: StreamSpec, piece: str) -> str:
    """A piece as its part's name has it: the weather, the folder, or the dataset's split."""
    if spec.procedural:
        return piece.removeprefix(SCENES)
    if spec.images is not None:
        return piece
    dataset, split = find_split(spec.located(piece))
    return split or dataset.default


def _order(count: int, order: str, seed: int) -> list[int]:
    if order == "shuffled":
        return [int(index) for index in np.random.default_rng(seed).permutation(count)]
    return list(range(count))[:: -1 if order == "reversed" else 1]
