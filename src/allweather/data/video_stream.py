"""A video as a stream: its frames by name, in any order, each checked to be the one that was asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from allweather.data.decoding import Losses, decoded_frames, is_frame, outline, read_packets, timed_late
from allweather.data.stream import Frame, Stream
from allweather.data.video import Video
from allweather.errors import ImageError
from allweather.pictures.pyav import load_pyav
from allweather.sizes import check_asked

if TYPE_CHECKING:
    from av import VideoFrame as Decoded

FEW = 8  # frames that are decoded to see whether packets and frames are the same
NEAR = 64  # frames ahead that are decoded on the way instead of looked for
_LEFT: list[object] = []  # open files of a process that was forked: closing them waits for threads that are not here


class VideoStream(Stream):
    """The frames of a video, named 000000, 000001, … in the order of play.

    The file is read through once to find its frames, without decoding them. Reading in order decodes each frame once;
    in any other order a frame costs the way from the last complete picture before it. One that cannot be decoded, or
    has another size than the first, raises where it stands. Where times do not tell frames apart (raw streams,
    recordings joined byte by byte, pictures of two packets, H.264 in AVI) all are decoded once to count them; the
    frames are then those of `Video`, any order costs the way from the beginning. Each process that reads opens the file
    for itself, forked workers of a DataLoader too (multiprocessing_context="fork").

    Attributes:
        video: the file.
        damage: what is missing at its beginning or end; None where nothing is.
        seconds: when each frame is shown, counted from the first, by name; None where all are at the video's rate.

    Args:
        path: a video file.
        size: (width, height) that every frame is resampled to; None keeps the video's own.

    Raises:
        ImageError, MissingLibraryError: as `Video`.
        SettingsError: for a size that is none.
    """

    video: Video

    def __init__(self, path: Path | str, size: tuple[int, int] | None = None) -> None:
        size, self.video = check_asked(size), Video(path)
        reader = _Reader(self.video)
        self.damage = reader.damage

        told = self.video.warnings(size)

        def read(name: str) -> Frame:
            while told:  # not before: who only asks for the frames' names sees none
                warnings.warn(told.pop(0), stacklevel=1)
            return Frame.of(name, reader.pixels(int(name)), size, self.video.path)

        super().__init__([f"{index:06d}" for index in range(reader.count)], read)
        self.seconds = None if reader.seconds is None else dict(zip(self.names, reader.seconds, strict=True))


class _Reader:
    """Decodes the frame of a number, going on from the last one where it can.

    Attributes:
        count: frames that the file holds.
        damage: what is missing at its beginning or end; None where nothing is.
        seconds: when each frame is shown, counted from the first; None where all are at the video's rate.
    """

    def __init__(self, video: Video) -> None:
        self._video = video
        self._open = ExitStack()
        self._frames: Iterator[tuple[int, Decoded]] = iter(())
        self._held: tuple[int, Decoded] | None = None  # decoded beyond the frame that was asked for
        self._process = os.getpid()
        moments, (self._times, tick) = video.moments(), self._scan()
        if self._times is None:
            seconds = [at for at, _ in video.decoded(moments, outline)]
            self.damage = video.damage
        else:
            seconds = [(time - self._times[0]) * tick for time in self._times]
        self.count = self._next = len(seconds)  # nothing is open: the first frame, whichever it is, is looked for
        even = all(abs(each - index / float(video.rate)) <= tick + 1e-9 for index, each in enumerate(seconds))
        self.seconds = None if even or moments.reordered else seconds

    def pixels(self, number: int) -> np.ndarray:
        """H×W×3 uint8 of the frame.

        Raises:
            ImageError: where it cannot be decoded, or has another size than the first.
        """
        if self._process != os.getpid():
            _LEFT.append((self._open, self._frames, self._held))
            self._open, self._next, self._process = ExitStack(), self.count, os.getpid()
        frame = self._find(number)
        if frame is None:
            raise ImageError(f"{self._video.path}: frame {number} cannot be decoded.")
        pixels = self._video.upright(frame)
        if change := self._video.change(number, pixels.shape[:2]):
            raise ImageError(f"{self._video.path}: {change}.")
        return pixels

    def _scan(self) -> tuple[list[int] | None, float]:
        """When each frame is shown, in order, where that tells frames apart; and the unit, in seconds."""
        losses, begun = Losses(), Losses()
        with self._video.opened() as (container, stream):
            packets = [
                (packet.pts, packet.dts)
                for packet in read_packets(container, stream, losses)
                if is_frame(packet) and not packet.is_discard
            ]
            late = timed_late(container, stream)
            missing, tick = self._video.length.missing(container, losses), float(stream.time_base or 0)
        with self._video.opened() as (container, stream):
            first = [frame.pts for frame in islice(decoded_frames(container, stream, begun), FEW)]
        self.damage = "; ".join(filter(None, [begun.beginning(), missing])) or None
        times = sorted(pts for pts, _ in packets if pts is not None)[begun.before :]
        order = [dts for _, dts in packets if dts is not None]  # it goes back where recordings were joined
        # in AVI those of decoding
        late = late and [pts for pts, _ in packets] == times
        apart = len(set(times)) == len(packets) - begun.before and order == sorted(order)
        same = first[0] in times if begun.failed else first == times[: len(first)]
        return (times if apart and same and not late else None), tick

    def _find(self, number: int) -> Decoded | None:
        if self._next <= number < self._next + NEAR:
            return self._forward(number)
        for start in (number, 0):  # from the beginning where the file's index led too far
            self._go_to(start)
            frame = self._forward(number)
            if frame is not None:
                return frame
        return None

    def _forward(self, number: int) -> Decoded | None:
        """The frame of a number that lies ahead; None where it was lost."""
        self._next = number + 1
        ahead = chain([self._held] if self._held else [], self._frames)
        self._held = None
        for at, frame in ahead:
            if at == number:
                return frame
            if at > number:
                self._held = (at, frame)
                return None
        return None

    def _go_to(self, number: int) -> None:
        """Opens the file again, at the last complete picture at or before the frame."""
        self._frames, self._held = iter(()), None
        self._open.close()
        container, stream = self._open.enter_context(self._video.opened())
        self._next = 0
        if self._times is None:
            self._frames = enumerate(decoded_frames(container, stream, Losses()))
            return
        if number:
            with suppress(load_pyav().FFmpegError):  # a file without an index stays at its beginning
                container.seek(self._times[number], stream=stream)
        numbers = {pts: index for index, pts in enumerate(self._times)}
        frames = decoded_frames(container, stream, Losses())
        self._frames = ((numbers[frame.pts], frame) for frame in frames if frame.pts in numbers)
