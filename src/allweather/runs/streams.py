"""Opening what a plan calls a stream: frames for the session, and the truth that only scoring reads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from allweather.classes import CITYSCAPES, CLASS_SETS, ClassSet
from allweather.data.datasets import Sample, find_split
from allweather.data.datasets.encodings import invalid_mask
from allweather.data.folder import open_files
from allweather.data.labels import find_mapping, label_files
from allweather.data.pairing import Scene, pair, scenes
from allweather.data.scenes import SIZE, scene_labels, scene_stream
from allweather.data.stream import Frame, Stream
from allweather.data.truth import TruthReader
from allweather.data.video import suffixes
from allweather.data.video_stream import VideoStream
from allweather.errors import InputError, SettingsError, unknown
from allweather.runs.plan import PIECE, SCENES, PlannedRun, StreamSpec, pixels
from allweather.runs.variables import resolve

T = TypeVar("T")

_SEEDS = range(500_000, 500_024)  # none of them trained or tuned anything


@dataclass(frozen=True)
class LabelledStream:
    """A stream and its truth.

    Attributes:
        stream: the frames, in the run's order.
        classes: of the truth.
        truth: name → H×W class indices, −1 where nothing counts; raises ImageError where it cannot be read.
        invalid: name → H×W booleans where the class cannot be seen, or None where no mask exists.
        part: name → the piece of a sequence that it belongs to, '' in a plain stream.
    """

    stream: Stream
    classes: ClassSet
    truth: Callable[[str], np.ndarray]
    invalid: Callable[[str], np.ndarray | None]
    part: Callable[[str], str]


def open_stream(run: PlannedRun) -> LabelledStream:
    """The stream of a run in the run's order, thinned and repeated as it says.

    Raises:
        AllWeatherError: when a variable is not set, nothing is found, or an image has no label.
    """
    scale = pixels(run.scoring) if run.scoring != "native" else None
    size = pixels(run.model.size) or scale
    if run.stream.procedural:
        labelled = _scenes(run.stream, size)
    else:
        labelled = _folders(run.stream, size) if run.stream.images else _dataset(run.stream, size)
    stream = labelled.stream.reordered(_order(len(labelled.stream), run.order, run.seed))
    made = LabelledStream(stream, labelled.classes, labelled.truth, labelled.invalid, labelled.part)
    return made if scale is None else _rescored(made, scale)


def _folders(spec: StreamSpec, size: tuple[int, int] | None) -> LabelledStream:
    assert spec.images is not None and spec.labels is not None
    images, labels = spec.images, spec.labels
    if spec.classes not in CLASS_SETS:
        raise unknown("class set", spec.classes, CLASS_SETS)
    mapping = find_mapping(spec.classes)
    reader = TruthReader(mapping)

    def opened(piece: str) -> tuple[Stream, dict[str, Scene]]:
        stream = _frames(resolve(images.replace(PIECE, piece)), size)
        folder = resolve(labels.replace(PIECE, piece))
        return stream, pair(stream.names, scenes(label_files(folder), folder))[0]

    joined = _join(spec, lambda piece: piece, opened)
    return LabelledStream(
        joined.stream,
        mapping.truth,
        lambda name: reader.read(*joined.truths[name].choose(None))[0],
        lambda name: None,
        joined.parts.__getitem__,
    )


def _frames(path: Path, size: tuple[int, int] | None) -> Stream:
    """The images below a folder, or the frames of a video.

    Raises:
        InputError: for a video without its end: figures of two machines would be of different frames.
    """
    if path.is_dir() or path.suffix.lower() not in suffixes:
        return open_files([path], size)
    stream = VideoStream(path, size)
    if stream.damage:
        raise InputError(f"{path}: {stream.damage}. Figures need the whole file: copy it again.")
    return stream


def _scenes(spec: StreamSpec, size: tuple[int, int] | None) -> LabelledStream:
    """Procedural scenes, the same ones in every weather."""
    size = size or SIZE

    def opened(piece: str) -> tuple[Stream, dict[str, str]]:
        stream = scene_stream(piece.removeprefix(SCENES), _SEEDS, size)
        return stream, {name: name for name in stream.names}

    joined = _join(spec, lambda piece: piece.removeprefix(SCENES), opened)

    def truth(name: str) -> np.ndarray:
        return scene_labels(joined.truths[name], size).astype(np.int64)

    return LabelledStream(joined.stream, CITYSCAPES, truth, lambda name: None, joined.parts.__getitem__)


def _dataset(spec: StreamSpec, size: tuple[int, int] | None) -> LabelledStream:
    assert spec.root is not None
    root, pieces = resolve(spec.root), spec.sequence or (spec.name,)
    found = {piece: find_split(spec.located(piece)) for piece in pieces}
    dataset = found[pieces[0]][0]
    if any(other.name != dataset.name for other, _ in found.values()):
        raise SettingsError(f"stream '{spec.name}': the pieces of a sequence are splits of one dataset.")
    decode = dataset.decoder(root)

    def opened(piece: str) -> tuple[Stream, dict[str, Sample]]:
        split = found[piece][1]
        samples = dataset.samples(root, split)
        return dataset.stream(root, split, size), {sample.name: sample for sample in samples if sample.label}

    joined = _join(spec, lambda piece: found[piece][1] or dataset.default, opened)

    def truth(name: str) -> np.ndarray:
        label = joined.truths[name].label
        assert label is not None
        return decode(label)

    def invalid(name: str) -> np.ndarray | None:
        mask = joined.truths[name].invalid
        return None if mask is None else invalid_mask(mask)

    return LabelledStream(joined.stream, dataset.classes, truth, invalid, joined.parts.__getitem__)


@dataclass(frozen=True)
class _Joined(Generic[T]):
    """The pieces of a stream, one after the other.

    Attributes:
        stream: the frames, each named PART/NAME, or NAME alone where the stream is no sequence.
        truths: such a name → where its labels come from.
        parts: such a name → its part.
    """

    stream: Stream
    truths: dict[str, T]
    parts: dict[str, str]


def _join(
    spec: StreamSpec, called: Callable[[str], str], opened: Callable[[str], tuple[Stream, Mapping[str, T]]]
) -> _Joined[T]:
    """Every n-th frame of each piece that `opened` gives, with the truths that it gives by the frames' own names.

    Raises:
        AllWeatherError: where a frame has no truth.
    """
    frames: dict[str, tuple[Stream, str]] = {}
    truths: dict[str, T] = {}
    parts: dict[str, str] = {}
    for part, piece in _pieces(spec, called):
        stream, known = opened(piece)
        names = stream.names[:: spec.every]
        if without := [name for name in names if name not in known]:
            raise InputError(f"stream '{spec.name}': {len(without)} images have no label, e.g. {without[0]}.")
        for original in names:
            name = f"{part}/{original}" if part else original
            frames[name], truths[name], parts[name] = (stream, original), known[original], part

    def read(name: str) -> Frame:
        stream, original = frames[name]
        return replace(stream.read(original), name=name)

    return _Joined(Stream(list(frames), read), truths, parts)


def _pieces(spec: StreamSpec, called: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """The pieces of a stream in order, each with its part's name ROUND/PIECE; one without a part if it is no sequence.

    A piece that comes again within a round gets a number.
    """
    if not spec.sequence:
        yield "", spec.name
        return
    for number in range(1, spec.rounds + 1):
        for index, piece in enumerate(spec.sequence):
            times = spec.sequence[: index + 1].count(piece)
            yield f"{number:02d}/{called(piece)}" + (f"-{times}" if times > 1 else ""), piece


def _order(count: int, order: str, seed: int) -> list[int]:
    if order == "shuffled":
        return [int(index) for index in np.random.default_rng(seed).permutation(count)]
    return list(range(count))[:: -1 if order == "reversed" else 1]


def _rescored(labelled: LabelledStream, size: tuple[int, int]) -> LabelledStream:
    """The same with truth and masks resampled to (width, height) by nearest neighbour."""

    def resampled(values: np.ndarray) -> np.ndarray:
        image = Image.fromarray(values.astype(np.int16).astype(np.int32))
        return np.asarray(image.resize(size, Image.Resampling.NEAREST)).astype(np.int64)

    def invalid(name: str) -> np.ndarray | None:
        mask = labelled.invalid(name)
        return None if mask is None else resampled(mask) == 1

    return LabelledStream(
        labelled.stream, labelled.classes, lambda name: resampled(labelled.truth(name)), invalid, labelled.part
    )
