"""The frames of an open video as upright RGB, one after another, and a count of what could not be decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EIO
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np

from allweather.pictures.pyav import load_pyav

if TYPE_CHECKING:
    from av import Packet
    from av import VideoFrame as Decoded
    from av.buffer import Buffer
    from av.container import InputContainer
    from av.video.stream import VideoStream

NEWER = 16  # kinds of side data that FFmpeg may know beyond those that PyAV has names for
TICK = Fraction(1, 1000)  # of a graph that looks at no time
VP8_SHOWN = 0x10  # bit of a packet's first byte
REPEATING = ("mpeg4", "vc1", "wmv3")  # codecs with packets that only say: the last picture again


@dataclass
class Losses:
    """What was lost while reading and decoding.

    Attributes:
        read: packets, one a frame, that the file gave.
        before: frames ahead of the first whole one that the decoder left out without a word.
        decoded: frames that came out whole.
        failed: packets and frames that did not.
        silent: frames after the first that the decoder left out without a word; known at the end.
        failed_at: whole frames before the first of those.
        end: the last moment of what was read, in seconds of the file's own clock.
        stopped: why reading ended before the file did; None where it did not.
    """

    read: int = 0
    before: int = 0
    decoded: int = 0
    failed: int = 0
    silent: int = 0
    failed_at: int = 0
    end: float = 0.0
    stopped: str | None = None

    def fail(self) -> None:
        """Counts a frame that is lost."""
        self.failed_at = self.failed_at if self.failed else self.decoded
        self.failed += 1

    def reach(self, packet: Packet[VideoStream]) -> None:
        """Moves the end to that of a packet."""
        if packet.pts is not None and packet.time_base is not None:
            self.end = max(self.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    def beginning(self) -> str | None:
        """What was lost of a recording that begins in the middle of a group of pictures; None where nothing was."""
        if not self.before:
            return None
        frames = "frame is" if self.before == 1 else f"{self.before} frames are"
        return f"the first {frames} left out: the picture to begin with is not in the file"

    def words(self) -> str | None:
        """How many frames were lost to damage or a missing beginning, and where; None where none were."""
        lost = self.failed + self.silent
        if not lost:
            return self.beginning()
        damaged = f"{'1 frame is' if lost == 1 else f'{lost} frames are'} damaged and left out"
        if self.failed:
            damaged += f", {'' if lost == 1 else 'the first of them '}after {self.failed_at} whole ones"
        return "; ".join(filter(None, [self.beginning(), damaged]))


class Moments:
    """When frames are shown, in seconds from the first; where the clock jumps back (recordings joined), a frame later.

    Args:
        rate: frames per second, for frames without a time.
        late: times may be in the order of decoding: where one goes back, frames are at the rate from there on.

    Attributes:
        reordered: whether they were.
    """

    reordered = False

    def __init__(self, rate: Fraction, late: bool) -> None:
        self._rate, self._late, self._index = rate, late, 0
        self._start: int | None = None
        self._last = self._ahead = 0.0

    def next(self, frame: Decoded) -> float:
        """When the next frame in the order of play is shown; never before the last."""
        seconds = at_rate = float(self._index / self._rate)
        self._index += 1
        if frame.pts is not None and frame.time_base is not None:
            self._start = frame.pts if self._start is None else self._start
            seconds = float((frame.pts - self._start) * frame.time_base)
        step = 1 / float(self._rate)
        if seconds + self._ahead < self._last - step:
            self.reordered = self._late
            self._ahead = self._last + step - seconds
        seconds = at_rate if self.reordered else seconds + self._ahead
        self._last = max(self._last, seconds)
        return self._last


def timed_late(container: InputContainer, stream: VideoStream) -> bool:
    """Whether frames may have the times of decoding: AVI with B-frames."""
    return "avi" in container.format.name and bool(stream.codec_context.has_b_frames)


def is_frame(packet: Packet[VideoStream]) -> bool:
    """Whether a packet is a frame that is shown. VP8 has others, to which frames refer; so an empty one is none."""
    if not packet.size:
        return False
    return packet.stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] & VP8_SHOWN)


def read_packets(container: InputContainer, stream: VideoStream, losses: Losses) -> Iterator[Packet[VideoStream]]:
    """The packets of a stream from where the file stands, and an empty one that asks the decoder for what it holds."""
    av = load_pyav()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            if losses.read and container.format.name == "mpjpeg" and error.errno == EIO:
                return  # so it says that the server has closed
            losses.stopped = f"the file cannot be read beyond its frame {losses.read} ({error.strerror})"
            return
        if is_frame(packet):
            losses.read += 1
            losses.reach(packet)
        yield packet


def decoded_frames(container: InputContainer, stream: VideoStream, losses: Losses) -> Iterator[Decoded]:
    """Every frame that is whole, from where the file stands, in the order of play; others are counted as lost."""
    av = load_pyav()
    early: list[int] = []  # times of packets before the first frame came
    shown, fields = 0, False
    for packet in read_packets(container, stream, losses):
        is_shown = is_frame(packet) and not packet.is_discard
        shown += is_shown
        if not losses.decoded and packet.pts is not None and is_shown:
            early.append(packet.pts)
        try:
            frames = packet.decode()
        except av.EOFError:
            break
        except av.FFmpegError:
            losses.fail()
            continue
        for frame in frames:
            if frame.is_corrupt:
                losses.fail()
                continue
            if not losses.decoded and frame.pts is not None:
                losses.before = max(0, sum(pts < frame.pts for pts in early) - losses.failed)
            losses.decoded += 1
            fields = fields or frame.interlaced_frame
            yield frame
    told = losses.before + losses.failed + losses.decoded
    if not (losses.stopped or fields or stream.codec_context.name in REPEATING):  # a field may have a packet of its own
        losses.silent = max(0, shown - told)


class NoRightAngle(ValueError):
    """A frame that is to be shown turned by something else than right angles."""


def upright(frame: Decoded) -> np.ndarray:
    """H×W×3 uint8 RGB of a frame, turned and mirrored as the file says; a copy that outlives the file.

    Raises:
        NoRightAngle: for a turn that is no multiple of a right angle.
    """
    from av.video.reformatter import Interpolation

    exact = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
    return _turned(np.asarray(frame.to_ndarray(format="rgb24", interpolation=exact)), _display_matrix(frame))


def outline(frame: Decoded) -> np.ndarray:
    """H×W×0: the shape of what `upright` gives or raises, without its work."""
    return _turned(np.empty((frame.height, frame.width, 0)), _display_matrix(frame))


def _display_matrix(frame: Decoded) -> Buffer | None:
    """How a frame is to be shown, where it says; PyAV refuses to look where it has no name for what lies beside."""
    try:
        return cast("Buffer | None", frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:
        return cast("Buffer | None", _nameable(frame).side_data.get("DISPLAYMATRIX"))


def _nameable(frame: Decoded) -> Decoded:
    """The frame without what this PyAV has no name for, such as the EXIF of JPEGs."""
    from av.filter import Graph
    from av.sidedata.sidedata import Type

    graph = Graph()
    graph.threads = 1
    newer = range(len(Type), len(Type) + NEWER)
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=TICK),
        *(graph.add("sidedata", f"mode=delete:type={kind}") for kind in newer),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    return cast("Decoded", graph.pull())


def _turned(pixels: np.ndarray, matrix: Buffer | None) -> np.ndarray:
    if matrix is None:
        return pixels
    numbers = np.frombuffer(memoryview(matrix), "=i4").tolist()
    xx, xy, yx, yy = numbers[0], numbers[1], numbers[3], numbers[4]  # x' = xx·x + yx·y, y' = xy·x + yy·y
    if xy and yx and not xx and not yy:
        pixels, flip_x, flip_y = pixels.swapaxes(0, 1), yx < 0, xy < 0
    elif xx and yy and not xy and not yx:
        flip_x, flip_y = xx < 0, yy < 0
    else:
        raise NoRightAngle(f"it is to be shown turned by {math.degrees(math.atan2(-xy, xx)):.0f}°")
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
