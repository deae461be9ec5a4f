"""Opening what a plan calls a stream: frames for the session, and the truth that only scoring reads."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from allweather.bench.plan import PIECE, SCENES, Run, StreamSpec, pixels
from allweather.classes import CITYSCAPES, CLASS_SETS, ClassSet
from allweather.data.datasets import Sample, find_dataset
from allweather.data.datasets.encodings import invalid_mask
from allweather.data.folder import open_files
from allweather.data.images import read_labels
from allweather.data.labels import find_mapping, label_files
from allweather.data.scenes import SIZE, scene_labels, scene_stream
from allweather.data.stream import Frame, Stream
from allweather.errors import AllWeatherError, unknown

_SEEDS = range(500_000, 500_024)  # none of them trained or tuned anything


@dataclass(frozen=True)
class Source:
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


def open_source(run: Run) -> Source:
    """The stream of a run in the run's order, thinned and repeated as it says.

    Raises:
        AllWeatherError: when a variable is not set, nothing is found, or an image has no label.
    """
    scale = pixels(run.scoring) if run.scoring != "native" else None
    size = pixels(run.model.size) or scale
    if run.stream.procedural:
        source = _scenes(run.stream, size)
    else:
        source = _folders(run.stream, size) if run.stream.images else _dataset(run.stream, size)
    stream = source.stream.reordered(_order(len(source.stream), run.order, run.seed))
    made = Source(stream, source.classes, source.truth, source.invalid, source.part)
    return made if scale is None else _rescored(made, scale)


def resolve(text: str) -> Path:
    """The path with variables like ${ROOT} filled in from the environment.

    Raises:
        AllWeatherError: when one of them is not set.
    """
    for name in re.findall(r"\$\{(\w+)\}", text):
        if name not in os.environ:
            raise AllWeatherError(f"{text}: the variable {name} is not set. Set it to the folder that holds the data.")
    return Path(re.sub(r"\$\{(\w+)\}", lambda match: os.environ[match[1]], text))


def _folders(spec: StreamSpec, size: tuple[int, int] | None) -> Source:
    assert spec.images is not None and spec.labels is not None
    if spec.classes not in CLASS_SETS:
        raise unknown("class set", spec.classes, CLASS_SETS)
    mapping = find_mapping(spec.classes)
    frames: dict[str, tuple[Stream, str]] = {}
    labels: dict[str, Path] = {}
    parts: dict[str, str] = {}
    for part, piece in _pieces(spec, lambda piece: piece):
        stream = open_files([resolve(spec.images.replace(PIECE, piece))], size)
        truths = label_files(resolve(spec.labels.replace(PIECE, piece)))
        names = stream.names[:: spec.every]
        _all_labelled(spec, [name for name in names if name not in truths])
        for original in names:
            name = f"{part}/{original}" if part else original
            frames[name], labels[name], parts[name] = (stream, original), truths[original], part
    return Source(
        Stream(list(frames), lambda name: _renamed(frames[name], name)),
        mapping.truth,
        lambda name: mapping.labels(read_labels(labels[name]), labels[name]),
        lambda name: None,
        parts.__getitem__,
    )


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


def _renamed(frame: tuple[Stream, str], name: str) -> Frame:
    stream, original = frame
    return replace(stream.read(original), name=name)


def _scenes(spec: StreamSpec, size: tuple[int, int] | None) -> Source:
    """Procedural scenes, the same ones in every weather; in a sequence each weather follows the one before."""
    size = size or SIZE
    frames: dict[str, tuple[Stream, str]] = {}
    parts: dict[str, str] = {}
    for part, piece in _pieces(spec, lambda piece: piece.removeprefix(SCENES)):
        stream = scene_stream(piece.removeprefix(SCENES), _SEEDS, size)
        for seed in stream.names[:: spec.every]:
            name = f"{part}/{seed}" if part else seed
            frames[name], parts[name] = (stream, seed), part

    def truth(name: str) -> np.ndarray:
        return scene_labels(frames[name][1], size).astype(np.int64)

    stream = Stream(list(frames), lambda name: _renamed(frames[name], name))
    return Source(stream, CITYSCAPES, truth, lambda name: None, parts.__getitem__)


def _dataset(spec: StreamSpec, size: tuple[int, int] | None) -> Source:
    assert spec.root is not None
    root, pieces = resolve(spec.root), spec.sequence or (spec.name,)
    dataset = find_dataset(pieces[0].partition(":")[0])
    if any(piece.partition(":")[0] != dataset.name for piece in pieces):
        raise AllWeatherError(f"stream '{spec.name}': the pieces of a sequence are splits of one dataset.")
    decode = dataset.decoder(root)
    samples: dict[str, Sample] = {}
    parts: dict[str, str] = {}
    streams: dict[str, tuple[Stream, str]] = {}
    for part, piece in _pieces(spec, lambda piece: piece.partition(":")[2] or dataset.default):
        split = piece.partition(":")[2] or None
        stream = dataset.stream(root, split, size)
        for sample in dataset.samples(root, split)[:: spec.every]:
            name = f"{part}/{sample.name}" if part else sample.name
            samples[name], parts[name], streams[name] = sample, part, (stream, sample.name)
    _all_labelled(spec, [name for name, sample in samples.items() if sample.label is None])

    def truth(name: str) -> np.ndarray:
        label = samples[name].label
        assert label is not None
        return decode(label)

    def invalid(name: str) -> np.ndarray | None:
        mask = samples[name].invalid
        return None if mask is None else invalid_mask(mask)

    frames = Stream(list(samples), lambda name: _renamed(streams[name], name))
    return Source(frames, dataset.classes, truth, invalid, parts.__getitem__)


def _all_labelled(spec: StreamSpec, without: list[str]) -> None:
    if without:
        raise AllWeatherError(f"stream '{spec.name}': {len(without)} images have no label, e.g. {without[0]}.")


def _order(count: int, order: str, seed: int) -> list[int]:
    if order == "shuffled":
        return [int(index) for index in np.random.default_rng(seed).permutation(count)]
    return list(range(count))[:: -1 if order == "reversed" else 1]


def _rescored(source: Source, size: tuple[int, int]) -> Source:
    """The same with truth and masks resampled to (width, height) by nearest neighbour."""

    def resampled(values: np.ndarray) -> np.ndarray:
        image = Image.fromarray(values.astype(np.int16).astype(np.int32))
        return np.asarray(image.resize(size, Image.Resampling.NEAREST)).astype(np.int64)

    def invalid(name: str) -> np.ndarray | None:
        mask = source.invalid(name)
        return None if mask is None else resampled(mask) == 1

    return Source(source.stream, source.classes, lambda name: resampled(source.truth(name)), invalid, source.part)
