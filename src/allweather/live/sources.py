"""Where live pictures come from: the contract of a source, files and folders."""

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
from allweather.errors import AllWeatherError, ImageError, SettingsError

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
        for said in self._video.warnings(size):
            warnings.warn(said, stacklevel=1)
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
