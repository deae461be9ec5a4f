"""How inputs become streams, each a sequence of its own: an input a stream, by a pattern over names, or by a list."""

import csv
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from allweather.data.folder import named_files, read_frame
from allweather.data.stream import Frame, Stream
from allweather.data.video import suffixes
from allweather.data.video_stream import VideoStream
from allweather.errors import ImageError, InputError, SettingsError
from allweather.pictures.walk import Found, look

COLUMNS = ("stream", "path")  # of a manifest
POSIX = r"[/\\\0]"  # what no folder's name has
WINDOWS = r'(?i)[/\\\0<>:"|?*]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)'
NO_FOLDER = WINDOWS if os.name == "nt" else POSIX


@dataclass(frozen=True)
class Source:
    """One stream, or a stretch of it, that any worker can open; small enough to be sent.

    Attributes:
        name: the stream's.
        frames: the frames' names, STREAM/NAME, and their files, in order.
        is_video: whether the one file of them all is a video.
        damage: what is missing at a video's end; None where nothing is.
        faults: frames where no file is that could be read, and why.
    """

    name: str
    frames: tuple[tuple[str, str], ...]
    is_video: bool = False
    damage: str | None = None
    faults: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def names(self) -> list[str]:
        """The frames' names in order."""
        return [name for name, _ in self.frames]

    def part(self, start: int, stop: int | None = None) -> "Source":
        """The frames from one place to another."""
        return replace(self, frames=self.frames[start:stop])

    def open(self, size: tuple[int, int] | None, refused: Mapping[str, str] | None = None) -> Stream:
        """The frames, resampled to (width, height) where that is given.

        Args:
            refused: frames that are not to be read, and why; they raise ImageError with that text.

        Raises:
            ImageError: for a video that cannot be read.
        """
        refused, faults = refused or {}, dict(self.faults)
        inner = self._video(size) if self.is_video else partial(_of_file, dict(self.frames), size)

        def read(name: str) -> Frame:
            if name in refused:
                raise ImageError(f"{name}: {refused[name]}")
            if name in faults:  # a pipe would never end
                raise ImageError(faults[name])
            return inner(name)

        return Stream(self.names, read)

    def _video(self, size: tuple[int, int] | None) -> "partial[Frame]":
        video = VideoStream(self.frames[0][1], size)
        return partial(_of_video, video)


def split(inputs: Sequence[Path], by: str = "folder") -> list[Source]:
    """The streams of inputs, in order.

    Args:
        inputs: folders of images, image files, and videos.
        by: `folder`: each folder and each video is a stream of its own name; FILE.csv: a list with the columns stream
            and path, its rows in the streams' order, paths relative to the list; anything else is a regular expression
            over the frames' names, whose group is the stream's name, such as `(cam[0-9]+)/.*`.

    Raises:
        InputError: for inputs that are missing or empty, streams without a frame, and two streams of one name.
        SettingsError: for a pattern that is none or has no group.
    """
    if by.lower().endswith(".csv"):
        found = _listed(Path(by), inputs)
    elif not inputs:
        raise InputError("no input: expected folders of images, or a list of streams (--streams-by manifest.csv).")
    elif by == "folder":
        found = [_of_input(given) for given in inputs]
    else:
        found = _matched(inputs, by)
    _check(found)
    return found


def joined(sources: Sequence[Source], size: tuple[int, int] | None) -> Stream:
    """All frames of all streams, one stream after another."""
    homes = {name: source for source in sources for name in source.names}
    opened: dict[str, Stream] = {}

    def read(name: str) -> Frame:
        source = homes[name]
        if source.name not in opened:
            opened[source.name] = source.open(size)
        return opened[source.name].read(name)

    return Stream(list(homes), read)


def _of_input(given: Path) -> Source:
    """One folder or video as a stream of its own name."""
    if given.suffix.lower() in suffixes and given.is_file():
        name, path = given.stem, str(given.resolve())
        video = VideoStream(given)
        return Source(name, tuple((f"{name}/{frame}", path) for frame in video.names), True, video.damage)
    if given.is_file():
        raise InputError(
            f"{given} is a file: expected folders and videos, each a stream. Say which stream files belong to with "
            "--streams-by PATTERN or manifest.csv."
        )
    return _source(given.resolve().name, named_files([given]))


def _matched(inputs: Sequence[Path], pattern: str) -> list[Source]:
    """The frames of all inputs, by what the pattern finds in their names."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SettingsError(f"--streams-by {pattern}: not a regular expression ({error}).") from error
    if not expression.groups:
        raise SettingsError(
            f"--streams-by {pattern}: expected folder, a list FILE.csv, or a pattern with a group that is the stream's "
            "name, such as '(cam[0-9]+)_.*'."
        )
    streams: dict[str, dict[str, Found]] = {}
    for name, found in named_files(inputs).items():
        match = expression.fullmatch(name)
        if match is None or not match[1]:
            raise InputError(f"--streams-by {pattern}: frame '{name}' does not match. Widen the pattern.")
        streams.setdefault(match[1], {})[name] = found
    return [_source(name, frames) for name, frames in streams.items()]


def _listed(path: Path, inputs: Sequence[Path]) -> list[Source]:
    """The streams of a list."""
    if inputs:
        raise InputError(f"{path} lists the frames: leave out the other inputs, {inputs[0]} first.")
    streams: dict[str, dict[tuple[str, ...], Found]] = {}
    for number, row in enumerate(_rows(path), 2):
        stream, file = (str(row.get(column) or "").strip() for column in COLUMNS)
        if not stream or not file:
            found = ",".join(map(str, row.values()))
            raise InputError(f"{path}, line {number}: expected a stream and a path, got {found}.")
        there = path.parent / file
        if there.is_dir() or there.suffix.lower() in suffixes:
            raise InputError(f"{path}, line {number}: expected a picture, got {file}. Folders and videos are INPUTs.")
        parts = Path(os.path.abspath(there)).with_suffix("").parts[1:]
        frames = streams.setdefault(stream, {})
        if parts in frames:
            raise InputError(f"{path}, line {number}: stream '{stream}' has a frame '{there.stem}' already.")
        frames[parts] = look(there) if there.exists() else Found(there)
    if not streams:
        raise InputError(f"{path} lists no frame: expected rows of {','.join(COLUMNS)} below its first line.")
    return [_source(name, _named(frames)) for name, frames in streams.items()]


def _named(frames: Mapping[tuple[str, ...], Found]) -> dict[str, Found]:
    """By the shortest ends of their paths that tell them apart."""
    length = 1
    while len(made := {"/".join(parts[-length:]): found for parts, found in frames.items()}) < len(frames):
        length += 1
    return made


def _rows(path: Path) -> Iterable[dict[str, str | None]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {*COLUMNS} <= set(reader.fieldnames or ()):
                raise InputError(f"{path}: expected a first line {','.join(COLUMNS)}, got {reader.fieldnames}.")
            yield from reader
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the list {path}: {error}.") from error


def _source(name: str, frames: Mapping[str, Found]) -> Source:
    faults = {f"{name}/{frame}": found for frame, found in frames.items() if found.fault is not None}
    return Source(
        name,
        tuple((f"{name}/{frame}", str(found.path.absolute())) for frame, found in frames.items()),
        faults=tuple(
            (frame, f"{found.path}: not a readable image ({found.fault}).") for frame, found in faults.items()
        ),
    )


def damages(sources: Iterable[Source]) -> str | None:
    """What is missing of videos, in words; None where nothing is."""
    return "; ".join(f"{source.name}: {source.damage}" for source in sources if source.damage) or None


def _check(sources: Collection[Source]) -> None:
    """Refuses names that are no folder's, names given twice, and streams without a frame."""
    seen: dict[str, Source] = {}
    for source in sources:
        if source.name in ("", ".", "..") or re.search(NO_FOLDER, source.name):
            raise InputError(
                f"'{source.name}' cannot be a stream's name: outputs are folders of that name. Name it in a list: "
                "--streams-by manifest.csv."
            )
        if not source.frames:
            raise InputError(f"stream '{source.name}' has no frame. Leave it out.")
        if source.name in seen:
            raise InputError(
                f"two streams would be named '{source.name}': {Path(seen[source.name].frames[0][1]).parent} and "
                f"{Path(source.frames[0][1]).parent}. Name them in a list: --streams-by manifest.csv."
            )
        seen[source.name] = source


def _of_file(files: Mapping[str, str], size: tuple[int, int] | None, name: str) -> Frame:
    return read_frame(name, Path(files[name]), size)


def _of_video(video: VideoStream, name: str) -> Frame:
    return replace(video.read(name.rpartition("/")[2]), name=name)
