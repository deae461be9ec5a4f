"""A video written frame by frame, which plays even where writing was interrupted or the disk became full."""

from __future__ import annotations

import math
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from allweather.errors import AllWeatherError, InputError, MissingLibraryError, SettingsError
from allweather.interrupts import interruptions_wait
from allweather.pictures.growing import GrowingFile
from allweather.pictures.pyav import load_pyav
from allweather.writing import Closing

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

ENCODERS = ("libx264", "libopenh264", "mpeg4")  # the first that the build of PyAV has is taken
OPTIONS = {  # no frame is held back: none shown late, none lost with the process
    "libx264": {"preset": "veryfast", "tune": "zerolatency", "crf": "20"},
    "mpeg4": {"flags": "+qscale", "global_quality": "354"},
}  # fmt: skip
BOXES = {"movflags": "hybrid_fragmented", "frag_duration": "1000000", "min_frag_duration": "500000"}  # microseconds
FORMATS = {  # by suffix: the container, and pieces of about a second
    ".mp4": ("mp4", BOXES), ".m4v": ("mp4", BOXES), ".mov": ("mov", BOXES),
    ".mkv": ("matroska", {"cluster_time_limit": "1000"}),
}  # fmt: skip
BT709, LIMITED = 1, 1  # how the file names its colors
CLOCK = 60_000  # ticks a second, at most, unless the rate itself has more; MPEG-4 cannot count beyond 65,535


class Film(Closing):
    """A video file under its final name that grows as frames come.

    It is written in pieces of a second, each complete: if the process ends, all plays but the piece begun last, at most
    a second and a frame. Closing joins them into an ordinary file. A film without frames leaves no file.

    Args:
        path: ends in .mp4, .m4v, .mov or .mkv. Its folder is made; an older file of that name is replaced.
        rate: frames per second.
        width, height: of the frames in pixels. Where one is odd, the last column or row is shown twice.

    Raises:
        SettingsError: for another suffix, or a rate or size that is not positive.
        AllWeatherError: when the file cannot be written.
        MissingLibraryError: when PyAV is not installed.

    Example:
        >>> import numpy as np
        >>> with Film("night.mp4", rate=25, width=64, height=48) as film:
        ...     film.write(np.zeros((48, 64, 3), np.uint8))  # RGB
    """

    def __init__(self, path: Path | str, rate: Fraction | float, width: int, height: int) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in FORMATS:
            raise SettingsError(f"{self.path}: expected a video's name ending in {', '.join(FORMATS)}.")
        if min(width, height) < 1:
            raise SettingsError(f"{self.path}: expected a width and height of at least 1, got {width}×{height}.")
        self.rate, self.width, self.height = _rate(self.path, rate), width, height
        self.written = 0
        self._av, self._last = load_pyav(), -1
        self._tick = 1 / (self.rate.numerator * Fraction(max(1, CLOCK // self.rate.numerator)))
        self._encoder = _encoder(self._av.codecs_available)
        self._file = GrowingFile(self.path)
        container, options = FORMATS[suffix]
        self._container = self._av.open(self._file, "w", format=container, container_options=options)
        self._stream = self._add_stream()
        self._closed = False

    def write(self, pixels: np.ndarray, seconds: float | None = None) -> None:
        """Adds a frame.

        Args:
            pixels: H×W×3 uint8 RGB, of the film's height and width.
            seconds: when it is shown, counted from the first frame, for videos of variable rate; None shows frames at
                the film's rate. A time that is not after the last frame's is moved one tick behind it.

        Raises:
            InputError: for pixels of another type or size.
            AllWeatherError: when the disk is full, or the film is closed; what was written before plays.
        """
        if self._closed:
            raise AllWeatherError(f"{self.path}: the film is closed; frames can only be added before.")
        expected = (self.height, self.width, 3)
        if pixels.shape != expected or pixels.dtype != np.uint8:
            raise InputError(
                f"{self.path}: expected pixels of shape {expected} and type uint8, got {pixels.shape}, {pixels.dtype}."
            )
        frame = self._frame(pixels)
        place = self.written / self.rate / self._tick if seconds is None else seconds / float(self._tick)
        frame.pts = self._last = max(round(place), self._last + 1)
        frame.time_base = self._tick
        self._encode(frame)
        self.written += 1

    def close(self) -> None:
        """Writes what is left; a second call does nothing.

        Raises:
            AllWeatherError: when it cannot be written; what was written before plays.
        """
        if self._closed:
            return
        try:
            if self.written:
                self._encode(None)
        finally:
            self._finish()
        self._file.check()

    def _add_stream(self) -> VideoStream:
        encoder, rate = self._encoder, self.rate
        stream: VideoStream = self._container.add_stream(encoder, rate=rate, options=OPTIONS.get(encoder, {}))
        stream.width, stream.height = self.width + self.width % 2, self.height + self.height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = self._tick
        stream.codec_context.gop_size = max(1, round(2 * self.rate))
        stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = BT709
        stream.codec_context.color_range = LIMITED
        return stream

    def _frame(self, pixels: np.ndarray) -> VideoFrame:
        """The pixels as the encoder takes them, of even size."""
        odd = ((0, self.height % 2), (0, self.width % 2), (0, 0))
        even = np.pad(pixels, odd, mode="edge") if self.height % 2 or self.width % 2 else np.ascontiguousarray(pixels)
        frame: VideoFrame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")

    def _encode(self, frame: VideoFrame | None) -> None:
        """Encodes a frame, or what the encoder holds back."""
        try:
            with interruptions_wait():  # within a callback of libav's the exception would be lost, and what was written
                self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError) as error:
            self._finish()
            self._file.check()
            raise AllWeatherError(
                f"{self.path}: the encoder failed ({error}). What was written before plays."
            ) from error
        if self._file.failure is not None:
            self._finish()
            self._file.check()

    def _finish(self) -> None:
        """Closes encoder and file, whatever happened to them."""
        if self._closed:
            return
        self._closed = True
        try:
            with interruptions_wait():
                self._container.close()
        except (self._av.FFmpegError, OSError) as error:
            self._file.fail(error)
        finally:
            self._file.close(keep=self.written > 0)


def _encoder(available: Collection[str]) -> str:
    """The first encoder of ours that this build of PyAV has.

    Raises:
        MissingLibraryError: where it has none.
    """
    for name in ENCODERS:
        if name in available:
            return name
    raise MissingLibraryError(
        f"this build of PyAV has none of the encoders {', '.join(ENCODERS)}. Install the wheel from the package index: "
        "pip install --force-reinstall 'allweather[video]'."
    )


def _rate(path: Path, rate: Fraction | float) -> Fraction:
    """The rate as a fraction that files can hold.

    Raises:
        SettingsError: where it is not positive and finite.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise SettingsError(f"{path}: expected a rate above 0 frames per second, got {rate}.")
    exact = rate if isinstance(rate, Fraction) else Fraction(rate)
    return max(exact.limit_denominator(1001), Fraction(1, 1001))
