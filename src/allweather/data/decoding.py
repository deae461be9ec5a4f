"""The frames of an open video as upright RGB, one after another, and a count of what could not be decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from allweather.pictures.pyav import load_pyav

if TYPE_CHECKING:
    from av import VideoFrame as Decoded
    from av.buffer import Buffer
    from av.container import InputContainer
    from av.video.stream import VideoStream


@dataclass
class Losses:
    """What was lost while decoding.

    Attributes:
        read: packets, one a frame, that the file gave.
        decoded: frames that they became.
        failed: packets that could not be decoded.
        failed_at: frames decoded before the first of those.
        partial: numbers of the frames that are damaged in part.
        end: the last moment of what was decoded, in seconds of the file's own clock.
        stopped: why reading ended before the file did; None where it did not.
    """

    read: int = 0
    decoded: int = 0
    failed: int = 0
    failed_at: int = 0
    partial: list[int] = field(default_factory=list)
    end: float = 0.0
    stopped: str | None = None

    def words(self) -> list[str]:
        """Each kind of loss in a few words."""
        found = []
        if self.failed:
            frames = "1 frame" if self.failed == 1 else f"{self.failed} frames, the first of them"
            found.append(f"{frames} after {self.failed_at} good ones, could not be decoded")
        if self.partial:
            first = f"frame {self.partial[0]}"
            many = f"{len(self.partial)} frames, the first of them {first}, are"
            found.append(f"{many if len(self.partial) > 1 else f'{first} is'} damaged in part")
        return [*found, self.stopped] if self.stopped else found


def decoded_frames(container: InputContainer, stream: VideoStream, losses: Losses) -> Iterator[Decoded]:
    """Every frame from where the file stands, in the order of play; what fails is counted and left out."""
    av = load_pyav()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            losses.stopped = f"the file cannot be read after frame {losses.decoded - 1} ({error.strerror})"
            return
        losses.read += packet.size > 0
        try:
            frames = packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError:
            losses.failed_at = losses.decoded if not losses.failed else losses.failed_at
            losses.failed += 1
            continue
        for frame in frames:
            _count(frame, losses)
            yield frame


def _count(frame: Decoded, losses: Losses) -> None:
    if frame.is_corrupt:
        losses.partial.append(losses.decoded)
    losses.decoded += 1
    if frame.pts is not None and frame.time_base is not None:
        losses.end = max(losses.end, float((frame.pts + (frame.duration or 0)) * frame.time_base))


def upright(frame: Decoded) -> np.ndarray:
    """H×W×3 uint8 RGB of a frame, turned as the file says; a copy that outlives the file.

    Raises:
        ValueError: for a turn that is no multiple of a right angle.
    """
    from av.video.reformatter import Interpolation

    exact = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
    return _turned(np.asarray(frame.to_ndarray(format="rgb24", interpolation=exact)), frame)


def _turned(pixels: np.ndarray, frame: Decoded) -> np.ndarray:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    numbers = np.frombuffer(memoryview(cast("Buffer", matrix)), "=i4").tolist()
    xx, xy, yx, yy = numbers[0], numbers[1], numbers[3], numbers[4]  # x' = xx·x + yx·y, y' = xy·x + yy·y
    if xy and yx and not xx and not yy:
        pixels, flip_x, flip_y = pixels.swapaxes(0, 1), yx < 0, xy < 0
    elif xx and yy and not xy and not yx:
        flip_x, flip_y = xx < 0, yy < 0
    else:
        raise ValueError(f"it is to be shown turned by {math.degrees(math.atan2(-xy, xx)):.0f}°")
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
