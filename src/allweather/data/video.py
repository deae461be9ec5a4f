"""A video file as frames in the order of play: what can be decoded is given, what cannot is said."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from allweather.data.decoding import Losses, Moments, NoRightAngle, decoded_frames, outline, timed_late, upright
from allweather.data.length import Length
from allweather.data.pixel_shape import bright, shown_size, squeezed
from allweather.data.refused import codec_name, why_unopened
from allweather.errors import ImageError
from allweather.pictures.pyav import load_pyav

if TYPE_CHECKING:
    from av import VideoFrame as Decoded
    from av.container import InputContainer
    from av.video.stream import VideoStream

    Look = Callable[[Decoded], np.ndarray]

suffixes = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc", ".gif", ".y4m",
)  # fmt: skip


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video.

    Attributes:
        index: 0 for the first that could be decoded, and so on.
        seconds: when it is shown, counted from the first; never less than the last frame's.
        pixels: H×W×3 uint8 RGB, turned upright as the file says.
    """

    index: int
    seconds: float
    pixels: np.ndarray = field(repr=False, compare=False)


class Video:
    """A video file, opened and checked. Each iteration plays it from its beginning.

    Frames of variable rate come as they are, each with its time. After an iteration to the end, `damage` says what was
    lost: a beginning whose first picture is missing, damaged frames, a missing end, everything after a change of size.

    Args:
        path: a file in any format that PyAV reads.

    Attributes:
        path: the file.
        rate: frames per second, the average where it varies; 25 where the file says nothing.
        width, height: of every frame in pixels, after it was turned upright.
        shown: (width, height) that gives frames the shape in which they are to be shown; others than their own where
            the file's pixels are not square.
        hdr: what to say of a video whose transfer function is PQ or HLG, read as if it were not; None of others.
        frames: number of frames by the file's own account; None where it has none.
        duration: in seconds by the file's own account; None where it has none.
        length: what the file says of rate, duration and frames.
        damage: what was lost in the last iteration; None before one, and where nothing was lost.

    Raises:
        ImageError: for a file that is missing, empty or no video, or has only sound, a codec that this build of PyAV
            lacks, or no frame that can be decoded.
        MissingLibraryError: when PyAV is not installed.

    Example:
        >>> video = Video("drive.mp4")
        >>> [frame.pixels.shape for frame in video]  # H×W×3 uint8, RGB
        [(48, 64, 3), (48, 64, 3)]
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.damage: str | None = None
        self._track = 0
        while not self._look():
            self._track += 1

    def __iter__(self) -> Iterator[VideoFrame]:
        for index, (seconds, pixels) in enumerate(self.decoded(self.moments(), upright)):
            yield VideoFrame(index, seconds, pixels)

    def moments(self) -> Moments:
        """New ones, by the file's rate and kind."""
        return Moments(self.rate, self._late)

    def decoded(self, moments: Moments, give: Look) -> Iterator[tuple[float, np.ndarray]]:
        """Each frame's time, by new `moments`, and what `give`, `upright` or `outline`, makes of it."""
        self.damage = None
        losses = Losses()
        with self.opened() as (container, stream):
            change = None
            for index, frame in enumerate(decoded_frames(container, stream, losses)):
                pixels = self._turned(give, frame)
                if change := self.change(index, pixels.shape[:2]):
                    break
                yield moments.next(frame), pixels
            last = f"{change}. It and all after it are left out" if change else self.length.missing(container, losses)
            self.damage = "; ".join(filter(None, [losses.words(), last])) or None

    @contextmanager
    def opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """The open file and its first stream of pictures with a frame, for as long as the context lasts.

        Raises:
            ImageError: as the constructor.
        """
        av = load_pyav()
        self._check_file()
        try:
            container = av.open(f"file:{self.path}")  # without it, a colon in a name is the end of a protocol
        except (av.FFmpegError, UnicodeError) as error:
            raise self._unreadable(why_unopened(self.path, error)) from error
        with container:
            yield container, self._stream(container)

    def upright(self, frame: Decoded) -> np.ndarray:
        """H×W×3 uint8 RGB of a frame of this file.

        Raises:
            ImageError: where it is to be turned by something else than right angles.
        """
        return self._turned(upright, frame)

    def change(self, index: int, shape: tuple[int, ...]) -> str | None:
        """What to say of frame `index` if its `shape`, (H, W), differs from the first frame's; else None."""
        if shape == (self.height, self.width):
            return None
        return (
            f"frame {index} is {shape[1]}×{shape[0]} instead of {self.width}×{self.height}; cut the "
            "video there, or encode it at one size"
        )

    def squeezed(self, size: tuple[int, int] | None) -> str | None:
        """What to say of frames that a resampling to `size`, (width, height), leaves in another shape; else None."""
        return squeezed(str(self.path), (self.width, self.height), self.shown, size)

    def warnings(self, size: tuple[int, int] | None) -> list[str]:
        """All that is to be said of frames that are resampled to `size`: `hdr` and `squeezed`."""
        return [said for said in (self.hdr, self.squeezed(size)) if said]

    def __repr__(self) -> str:
        return f"Video({str(self.path)!r}, {self.width}×{self.height}, {float(self.rate):.6g} frames per second)"

    def _look(self) -> bool:
        """Learns what the file says of its pictures; False where they are an empty track before another one."""
        with self.opened() as (container, stream):
            self.length, self._late = Length.of(container, stream), timed_late(container, stream)
            self.rate, self.duration, self.frames = self.length.rate, self.length.seconds, self.length.frames
            losses = Losses()
            first = next(decoded_frames(container, stream, losses), None)
            if first is None and not losses.read and moving_pictures(container)[self._track + 1 :]:
                return False
            if first is None:
                what = "no frame in it can be decoded" if losses.read else "there is no frame in it"
                raise self._unreadable(f"{what}; record or encode it again")
            self.height, self.width = self._turned(outline, first).shape[:2]
            self.shown, self.hdr = shown_size(first, stream.sample_aspect_ratio), bright(str(self.path), first)
        return True

    def _turned(self, give: Look, frame: Decoded) -> np.ndarray:
        try:
            return give(frame)
        except NoRightAngle as error:
            raise self._unreadable(f"{error}; expected a multiple of 90°. Turn it when encoding") from error

    def _check_file(self) -> None:
        try:
            facts = self.path.stat()
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error
        if stat.S_ISDIR(facts.st_mode):
            raise self._unreadable("it is a folder")
        if not stat.S_ISREG(facts.st_mode):
            raise self._unreadable("it is a device or a pipe, not a file")
        if not facts.st_size:
            raise self._unreadable("it is empty")
        if not os.access(self.path, os.R_OK):
            raise self._unreadable("Permission denied")

    def _stream(self, container: InputContainer) -> VideoStream:
        streams = moving_pictures(container)
        if not streams:
            others = ", ".join(sorted({s.type for s in container.streams}))
            raise self._unreadable(f"there is no video in it, only {others}" if others else "there is nothing in it")
        if container.format.name == "tiff_pipe":
            raise self._unreadable("it is a TIFF picture, of several pages perhaps; save each as a picture of its own")
        stream = streams[self._track]
        if stream.codec_context is None:
            codec = codec_name(self.path)
            raise self._unreadable(f"this build of PyAV has no decoder for its codec{codec}; convert it to H.264 first")
        stream.thread_type = "AUTO"
        return stream

    def _unreadable(self, reason: str) -> ImageError:
        return ImageError(f"{self.path}: not a readable video ({reason}).")


def moving_pictures(container: InputContainer) -> list[VideoStream]:
    """The streams of pictures that are no cover of another's."""
    from av.stream import Disposition

    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
