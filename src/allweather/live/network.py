"""Streams over a network, RTSP and HTTP above all, by PyAV; what breaks off or stops is said."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from allweather.data.decoding import Losses, Moments, NoRightAngle, decoded_frames, timed_late, upright
from allweather.data.length import Length
from allweather.data.pixel_shape import bright, shown_size, squeezed
from allweather.data.stream import Frame
from allweather.data.video import moving_pictures
from allweather.errors import InputError
from allweather.live.sources import Lost, Shot, Size, Source, known_rate
from allweather.pictures.pyav import load_pyav

if TYPE_CHECKING:
    from av import VideoFrame as Decoded
    from av.container import InputContainer
    from av.video.stream import VideoStream

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtp", "srt", "tcp", "udp")
NO_DELAY = {"flags": "low_delay", "rtsp_transport": "tcp"}


class NetworkSource(Source):
    """A stream's address.

    A stream that states its length, such as a video file served over HTTP, is played once, at its rate; any other is
    endless, and its pictures are due as they come.

    Args:
        address: with a scheme.
        size: (width, height) that frames are resampled to; None keeps each one's own.
        stall: seconds without a picture after which the stream counts as broken off.
    """

    endless = True

    def __init__(self, address: str, size: Size, stall: float) -> None:
        self.label, self._address, self._size, self._stall = public(address), address, size, stall
        self._numbers = count()
        load_pyav()

    def connect(self) -> Iterator[Shot]:
        av, begun = load_pyav(), monotonic()
        try:
            container = av.open(self._address, timeout=(self._stall, self._stall), options=NO_DELAY)
        except (av.FFmpegError, UnicodeError, ValueError) as error:
            raise InputError(f"{self.label}: {self._why(error, monotonic() - begun)}.") from error
        stream = next(iter(moving_pictures(container)), None)
        if stream is None or stream.codec_context is None:
            container.close()
            found = "this build of PyAV has no decoder for its codec; send H.264" if stream else "there are none in it"
            raise InputError(f"{self.label}: expected a stream with pictures; {found}.")
        self.endless = not container.duration
        self.rate = known_rate(float(stream.average_rate or 0))
        return self._shots(container, stream)

    def _shots(self, container: InputContainer, stream: VideoStream) -> Iterator[Shot]:
        losses, late = Losses(), timed_late(container, stream)
        length = Length.of(container, stream)
        moments = Moments(length.rate, late)
        with container:
            for frame in decoded_frames(container, stream, losses):
                name, pixels = f"{next(self._numbers):06d}", self._upright(frame)
                if losses.decoded == 1:
                    self._tell(frame, pixels, shown_size(frame, stream.sample_aspect_ratio))
                yield Shot(None if self.endless else moments.next(frame), partial(Frame.of, name, pixels, self._size))
            missing = length.missing(container, losses)
        if losses.stopped:
            stopped = "Immediate exit" in losses.stopped
            raise Lost(f"no picture for {self._stall:g} s" if stopped else "the connection broke off")
        if not losses.decoded:
            raise Lost("no picture of it could be decoded")
        if self.endless:
            losses.before = 0  # who joins a stream has no right to its beginning
        said = filter(None, [losses.words(), None if self.endless else missing])
        self.damage = f"{self.label}: {text}." if (text := "; ".join(said)) else None

    def _tell(self, frame: Decoded, pixels: np.ndarray, shown: tuple[int, int]) -> None:
        stored = (pixels.shape[1], pixels.shape[0])
        for said in (bright(self.label, frame), squeezed(self.label, stored, shown, self._size)):
            if said:
                warnings.warn(said, stacklevel=1)  # of one text, so that coming back is no news

    def _upright(self, frame: Decoded) -> np.ndarray:
        try:
            return upright(frame)
        except NoRightAngle as error:
            raise InputError(f"{self.label}: {error}; expected a multiple of 90°.") from error

    def _why(self, error: Exception, waited: float) -> str:
        said = getattr(error, "strerror", None) or str(error)
        silent = said.startswith("Invalid data") and waited >= self._stall  # so the RTSP demuxer says it
        if "Immediate exit" in said or silent:
            return (
                f"no answer within {self._stall:g} s, or too few pictures: opening takes two; a slow camera needs "
                "a longer --stall"
            )
        if said == "Input/output error":
            return "cannot be reached (no such host, or it does not answer)"
        if said.startswith("Invalid data"):
            return "what comes from there is no video of a known format"
        return f"cannot be opened ({said})"


def public(address: str) -> str:
    """The address without user name and password, and without its query, in which cameras take them too.

    Raises:
        InputError: for what is no address.
    """
    try:
        parts = urlsplit(address)
    except ValueError:  # its message may hold the password
        scheme = address.partition("://")[0]
        raise InputError(f"{scheme}://…: not an address. Expected {scheme}://HOST/PATH, an IPv6 host in [ ].") from None
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
