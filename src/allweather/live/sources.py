"""Where live pictures come from: the contract of a source, files and folders, and which source a name means."""

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

from allweather.data import Video, open_files
from allweather.data.stream import Frame
from allweather.errors import AllWeatherError, ImageError, InputError, SettingsError
from allweather.rgb import EXTENSIONS
from allweather.sizes import check_asked

FOLDER_RATE = 10.0  # pictures per second of a folder, which says nothing
Size = tuple[int, int] | None


class Lost(AllWeatherError):
    """A stream broke off, or nothing came of it for too long."""


@dataclass(frozen=True)
class Shot:
    """One picture of a source.

    Attributes:
        seconds: when it is due, counted from the source's beginning; None for one that is due as it comes.
        make: gives the frame; None where there is none.
        failure: why it cannot be read; None where it can.
    """

    seconds: float | None = None
    make: Callable[[], Frame] | None = None
    failure: str | None = None


class Source(ABC):
    """Pictures in the order in which they come.

    Attributes:
        label: what messages and records call it; without any password.
        endless: whether its end is a fault, and it can be connected to again.
        rate: pictures per second; None where nothing says.
        total: how many pictures there are; None where nothing says.
        damage: after its end, what was missing; None where nothing was.
    """

    label: str
    endless: bool = False
    rate: float | None = None
    total: int | None = None
    damage: str | None = None

    @abstractmethod
    def connect(self) -> Iterator[Shot]:
        """The pictures from here on.

        Raises:
            InputError: when nothing can be had from it.
            Lost: by the iterator, when it breaks off.
        """


class FolderSource(Source):
    """The images of a folder, in natural order, at a rate; or a single image."""

    def __init__(self, path: Path, size: Size, rate: float | None) -> None:
        self.label, self.rate = str(path), rate or FOLDER_RATE
        self._stream = open_files([path], size)
        self.total = len(self._stream)

    def connect(self) -> Iterator[Shot]:
        return (self._shot(index, name) for index, name in enumerate(self._stream.names))

    def _shot(self, index: int, name: str) -> Shot:
        try:
            frame = self._stream.read(name)
        except ImageError as error:
            return Shot(failure=str(error))
        return Shot(index / (self.rate or FOLDER_RATE), lambda: frame)


class FileSource(Source):
    """A video file, played at its own rate or at another."""

    def __init__(self, path: Path, size: Size, rate: float | None) -> None:
        self.label, self._size = str(path), size
        self._video = Video(path)
        if squeezed := self._video.squeezed(size):
            warnings.warn(squeezed, stacklevel=1)
        self._pace = 1.0 if rate is None else float(self._video.rate) / rate
        self.rate, self.total = rate or float(self._video.rate), self._video.frames

    def connect(self) -> Iterator[Shot]:
        for frame in self._video:
            name = f"{frame.index:06d}"
            yield Shot(frame.seconds * self._pace, partial(Frame.of, name, frame.pixels, self._size, self._video.path))
        if self._video.damage:
            self.damage = f"{self.label}: {self._video.damage}."


def known_rate(said: float) -> float | None:
    """Pictures per second by what a device or stream says; None where that is no rate: 0, −1 or NaN."""
    return said if isfinite(said) and said > 0 else None


def check_positive(name: str, value: Any) -> None:
    """Refuses a time or rate that is no number above 0; None passes.

    Raises:
        SettingsError: naming it.
    """
    if value is None:
        return
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not float(value) > 0:
        raise SettingsError(f"live: expected a {name} above 0, got {value!r:.60}{'' if number else ', no number'}.")


def open_source(name: str | Path, size: Size = None, rate: float | None = None, stall: float = 30.0) -> Source:
    """The source that a name means: a video file, a folder of images, `camera:0`, or a stream's address.

    Args:
        size: (width, height) that frames are resampled to; None keeps each one's own.
        rate: pictures per second of a file or folder; None for the file's own, and 10 of a folder.
        stall: seconds without a picture after which a stream counts as broken off.

    Raises:
        InputError: when there is no such thing, it cannot be read, or it is no name.
        SettingsError: for a size that is none, a rate or stall that is not above 0, or a rate of a camera or stream.
        MissingLibraryError: when the library that reads it is not installed.
    """
    if not isinstance(name, str | Path):
        raise InputError(
            "expected a video file, a folder of images, camera:0 or an address, or a live.sources.Source; got "
            f"{name!r:.60}. Pictures that are there already go to session.stream(pictures)."
        )
    name, size = str(name), check_asked(size)
    for setting, value in (("rate", rate), ("stall", stall)):
        check_positive(setting, value)
    from allweather.live.camera import CameraSource
    from allweather.live.network import SCHEMES, NetworkSource, public

    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):(//)?", name)
    if scheme and scheme[1] == "camera":
        _check_own_rate(name, rate)
        return CameraSource(name.removeprefix("camera:"), size)
    if scheme and scheme[2]:
        if scheme[1].lower() not in SCHEMES:
            raise InputError(
                f"{public(name)}: expected an address that begins with {', '.join(SCHEMES)}, got {scheme[1]}."
            )
        _check_own_rate(public(name), rate)
        return NetworkSource(name, size, stall)
    path = Path(name)
    if not name:
        raise InputError(
            "expected a video file, a folder of images, camera:0 or an address, got an empty text. '.' is the working "
            "folder."
        )
    if path.is_dir() or path.suffix.lower() in EXTENSIONS:
        return FolderSource(path, size, rate)
    if not path.exists():
        raise InputError(
            f"no such source: {name}. Expected a video file, a folder of images, camera:0, or an address such as "
            "rtsp://HOST/PATH."
        )
    return FileSource(path, size, rate)


def _check_own_rate(label: str, rate: float | None) -> None:
    """Refuses a rate of what comes at its own."""
    if rate is not None:
        raise SettingsError(
            f"live: expected a rate (--rate) of a file or folder alone, got {rate:g}; {label} comes at its own. Leave "
            "it out."
        )
