"""Streams with their truth: frames for adaptation, and beside them the labels that only scoring reads."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from allweather.classes import CITYSCAPES, ClassSet
from allweather.data.class_files import find_classes
from allweather.data.datasets import find_split
from allweather.data.datasets.dataset import Dataset
from allweather.data.datasets.encodings import invalid_mask
from allweather.data.folder import named_files, open_files
from allweather.data.labels import label_files, mapping_between
from allweather.data.pairing import labelled_pictures, pair
from allweather.data.scenes import SIZE, scene_labels, scene_stream
from allweather.data.stream import Frame, Stream, no_frame
from allweather.data.truth import LabelsAs, TruthReader
from allweather.data.video import suffixes
from allweather.data.video_stream import VideoStream
from allweather.errors import ImageError, InputError, SettingsError
from allweather.plugins import told_of
from allweather.sizes import check_asked, check_size
from allweather.values import check_number

Size = tuple[int, int]  # width, height


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of one frame.

    Attributes:
        labels: H×W class indices, −1 where nothing counts.
        invalid: H×W booleans where the class cannot be seen; None where no mask exists.
    """

    labels: np.ndarray
    invalid: np.ndarray | None = None

    def resized(self, size: Size) -> "Truth":
        """The same at (width, height), by nearest neighbour.

        Raises:
            SettingsError: for a size that is none.
        """
        size = check_size(size)
        invalid = None if self.invalid is None else _nearest(self.invalid, size) == 1
        return Truth(_nearest(self.labels, size), invalid)


@dataclass(frozen=True)
class LabelledStream:
    """A stream whose frames have a truth.

    Attributes:
        stream: the frames, in order.
        classes: of the truth.
        read_truth: gives a name's truth; raises ImageError where it cannot be read.
        known: names that have a truth at all.
        parts: name → the piece of a sequence that it belongs to; empty where the stream is no sequence.
        size: (width, height) that the truth is resampled to; None keeps each one's own.
        firsts: part → the first part that has the same frames, itself where none has before; empty likewise.
        files: gives the files that frames and truths are read from, those of frames that were left out too.
    """

    stream: Stream
    classes: ClassSet
    read_truth: Callable[[str], Truth]
    known: frozenset[str]
    parts: Mapping[str, str] = field(default_factory=dict)
    size: Size | None = None
    firsts: Mapping[str, str] = field(default_factory=dict)
    files: Callable[[], Iterable[Path]] = tuple

    def data_hash(self) -> str | None:
        """sha256 of the names and sizes in bytes of all `files`, whatever the order and the part of them that is taken.

        None where there are no files.
        """
        return hash_of(self.files())

    def truth(self, name: str, stored: Size | None = None) -> Truth:
        """The truth of the frame of that name.

        Args:
            stored: (width, height) of the frame as it is stored, upright; its truth must be of that shape, at any
                resolution. None looks at none.

        Raises:
            ImageError: when it cannot be read, is of another shape, or no frame of that name has a truth.
        """
        if name not in self.known:
            raise no_frame(name, sorted(self.known), "frame with a truth")
        truth = self.read_truth(name)
        if stored is not None:
            _check_shape(name, truth.labels, stored)
        return truth if self.size is None else truth.resized(self.size)

    def every(self, step: int) -> "LabelledStream":
        """Each `step`-th frame, from the first on.

        Raises:
            SettingsError: for a step that is no whole number of at least 1.
        """
        check_number("every", step, whole=True, low=1)
        return self.reordered(range(0, len(self.stream), step))

    def reordered(self, order: Sequence[int]) -> "LabelledStream":
        """The same frames, the i-th being today's `order[i]`-th; those that are not named are left out."""
        return replace(self, stream=self.stream.reordered(order))

    def scored_at(self, size: Size) -> "LabelledStream":
        """The same frames with their truth at (width, height).

        Raises:
            SettingsError: for a size that is none.
        """
        return replace(self, size=check_size(size))

    def checked(self, title: str) -> "LabelledStream":
        """Itself.

        Raises:
            InputError: where a frame has no truth.
        """
        if without := [name for name in self.stream.names if name not in self.known]:
            raise InputError(f"stream '{title}': {len(without)} images have no label, e.g. {without[0]}.")
        return self


def _check_shape(name: str, labels: np.ndarray, stored: Size) -> None:
    (height, width), (stored_width, stored_height) = labels.shape, stored
    if _alike((width, height), stored):
        return
    turned = (
        " Pictures are turned upright as their EXIF says, labels are not: turn the label too, or take that out of the "
        "picture."
        if _alike((height, width), stored)
        else ""
    )
    raise ImageError(
        f"{name}: its label has {width}×{height} pixels, its image {stored_width}×{stored_height}. Expected one shape, "
        f"at any resolution.{turned}"
    )


def _alike(first: Size, second: Size) -> bool:
    """Whether one size may be the other at another resolution, each side rounded to whole pixels."""
    return abs(first[0] * second[1] - first[1] * second[0]) <= max(*first, *second)


def labelled_folders(
    images: Path | str,
    labels: Path | str,
    classes: ClassSet | str,
    size: Size | None = None,
    labels_as: LabelsAs | None = None,
) -> LabelledStream:
    """A folder of images, or a video, and a folder of label files, paired by their names.

    A video's frames are named after their numbers: 000000.png is the label of the first.

    Args:
        classes: what the label files hold: a class set, or what `find_classes` knows it by, such as `cityscapes` or
            `yard.toml`.
        size: (width, height) that every frame is resampled to; the truth keeps its own.
        labels_as: as `TruthReader` takes it.

    Raises:
        AllWeatherError: for folders without images or labels, or classes or `labels_as` that are not known.
    """
    images, labels, classes = Path(images), Path(labels), _class_set(classes)
    mapping, stream = mapping_between(classes, classes), _frames(images, size)
    reader = TruthReader(mapping, labels_as, option='labels_as = "{}"')
    found = pair(stream.names, labelled_pictures(label_files(labels), labels))[0]

    def read(name: str) -> Truth:
        return Truth(reader.read(*found[name].choose(labels_as))[0])

    def files() -> Iterator[Path]:
        yield from (each.path for each in named_files([images]).values()) if images.is_dir() else [images]
        yield from (scene.choose(labels_as)[0] for scene in found.values())

    return LabelledStream(stream, mapping.truth, read, frozenset(found), files=files)


def _class_set(classes: Any) -> ClassSet:
    if isinstance(classes, ClassSet):
        return classes
    if not isinstance(classes, str | Path):
        raise SettingsError(f"classes: expected a ClassSet or its name, such as 'cityscapes', got {classes!r:.60}.")
    return find_classes(str(classes))


def _frames(path: Path, size: Size | None) -> Stream:
    """The images below a folder, or the frames of a video.

    Raises:
        InputError: for a video without its end, as figures of the same file elsewhere would be of other frames.
    """
    if path.is_dir() or path.suffix.lower() not in suffixes:
        return open_files([path], size)
    stream = VideoStream(path, size)
    if stream.damage:
        raise InputError(f"{path}: {stream.damage}. Figures need the whole file: copy it again.")
    return stream


def labelled_scenes(weather: str, seeds: range, size: Size | None = None) -> LabelledStream:
    """Procedural scenes, the same ones in every weather.

    Raises:
        AllWeatherError: for an unknown weather.
    """
    asked = check_asked(size) or SIZE
    stream = scene_stream(weather, seeds, asked)

    def read(name: str) -> Truth:
        return Truth(scene_labels(name, asked).astype(np.int64))

    return LabelledStream(stream, CITYSCAPES, read, frozenset(stream.names))


def labelled_split(
    dataset: Dataset | str, root: Path | str, split: str | None = None, size: Size | None = None
) -> LabelledStream:
    """A dataset's split with its labels, and its masks of what cannot be seen.

    Args:
        dataset: the dataset, or `NAME` or `NAME:SPLIT` as `find_split` takes them.
        root: the dataset's folder.
        split: None is the one that the name says, or else the default one.
        size: (width, height) that every frame is resampled to; the truth keeps its own.

    Raises:
        AllWeatherError: for an unknown name, two splits at once, or when nothing is found.
    """
    (dataset, split), root = _dataset(dataset, split), Path(root)
    with told_of(dataset.decoder, f"the decoder of {dataset.name}"):
        decode = dataset.decoder(root)
    samples = {sample.name: sample for sample in dataset.samples(root, split)}

    def read(name: str) -> Truth:
        sample = samples[name]
        assert sample.label is not None
        with told_of(decode, f"the decoder of {dataset.name}"):
            labels = decode(sample.label)
        _check_decoded(dataset, sample.label, labels)
        invalid = None if sample.invalid is None else invalid_mask(sample.invalid)
        if invalid is not None and invalid.shape != labels.shape:
            sizes = "{1}×{0} pixels. Expected its label's {3}×{2}.".format(*invalid.shape, *labels.shape)
            raise ImageError(f"{sample.invalid}: {sizes}")
        return Truth(labels, invalid)

    def files() -> Iterator[Path]:
        for sample in samples.values():
            yield from filter(None, (sample.image, sample.label, sample.invalid))
        reads = dataset.reads
        names = reads(root, split or dataset.default) if callable(reads) else reads
        yield from (root / name for name in names if (root / name).is_file())

    known = frozenset(name for name, sample in samples.items() if sample.label)
    return LabelledStream(dataset.stream(root, split, size), dataset.classes, read, known, files=files)


def _check_decoded(dataset: Dataset, path: Path, labels: Any) -> None:
    """Refuses what a decoder of somebody's own should not give.

    Raises:
        InputError: for no H×W array of whole numbers; ImageError for values that are no class, in this file alone.
    """
    expected = f"expected H×W whole numbers in -1..{len(dataset.classes) - 1}, -1 where nothing counts"
    said = f"the decoder of {dataset.name} gave"
    if not isinstance(labels, np.ndarray):
        raise InputError(f"{said} {type(labels).__name__} for {path}: {expected}, as a NumPy array.")
    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "iub":
        shape = "×".join(map(str, labels.shape)) or "one number"
        raise InputError(f"{said} {shape} of {labels.dtype} for {path}: {expected}.")
    if labels.min() < -1 or labels.max() >= len(dataset.classes):
        raise ImageError(f"{said} {labels.min()}..{labels.max()} for {path}: {expected}.")


def _dataset(dataset: Any, split: str | None) -> tuple[Dataset, str | None]:
    if isinstance(dataset, Dataset):
        return dataset, split
    if not isinstance(dataset, str):
        raise SettingsError(f"dataset: expected a Dataset or its name, such as 'camvid:val', got {dataset!r:.60}.")
    found, said = find_split(dataset)
    if said is not None and split is not None and said != split:
        raise SettingsError(f"{dataset} says which split, and so does split={split!r}. Leave one of them out.")
    return found, said if split is None else split


def join(pieces: Iterable[tuple[str, LabelledStream]]) -> LabelledStream:
    """Streams of one class set, one after the other; a frame is then named PART/NAME and belongs to part PART.

    Args:
        pieces: each part's name with its stream, at least one; one stream may come as several parts.

    Raises:
        InputError: where two parts, or two frames, would have one name.
    """
    pieces, sources = list(pieces), dict[str, tuple[str, LabelledStream, str]]()
    parts = [part for part, _ in pieces]
    if twice := [part for part, times in Counter(parts).items() if times > 1]:
        raise InputError(f"parts: expected each name once, got '{twice[0]}' {parts.count(twice[0])} times.")
    for part, piece in pieces:
        for name in piece.stream.names:
            whole = f"{part}/{name}"
            if whole in sources:
                raise InputError(f"parts '{sources[whole][0]}' and '{part}' both have a frame '{whole}': rename one.")
            sources[whole] = (part, piece, name)

    def read(name: str) -> Frame:
        _, piece, original = sources[name]
        return replace(piece.stream.read(original), name=name)

    def read_truth(name: str) -> Truth:
        _, piece, original = sources[name]
        return piece.truth(original)

    def files() -> Iterator[Path]:
        return (path for piece in {id(piece): piece for _, piece in pieces}.values() for path in piece.files())

    known = frozenset(name for name, (_, piece, original) in sources.items() if original in piece.known)
    of = {name: part for name, (part, _, _) in sources.items()}
    known_as: dict[int, str] = {}
    firsts = {part: known_as.setdefault(id(piece), part) for part, piece in pieces}
    return LabelledStream(
        Stream(list(sources), read), pieces[0][1].classes, read_truth, known, of, firsts=firsts, files=files
    )


def hash_of(files: Iterable[Path]) -> str | None:
    """sha256 of the names and sizes in bytes of files; None where there are none."""
    told = sorted(f"{path.name}\t{_size_in_bytes(path)}" for path in files)
    return hashlib.sha256("\n".join(told).encode(errors="surrogateescape")).hexdigest() if told else None


def _size_in_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # it may be a frame that cannot be read
        return None


def _nearest(values: np.ndarray, size: Size) -> np.ndarray:
    image = Image.fromarray(values.astype(np.int16).astype(np.int32))
    return np.asarray(image.resize(size, Image.Resampling.NEAREST)).astype(np.int64)
