"""Data: streams of frames for adaptation, and labels that only scoring can reach."""

from pathlib import Path

from allweather.data.folder import open_files
from allweather.data.stream import Frame, Stream
from allweather.errors import unknown


def load_stream(kind: str, path: Path | str, size: tuple[int, int] | None = None) -> Stream:
    """A stream of frames: `load_stream("folder", "night_drive/")`.

    Args:
        kind: `folder`, the images below a folder in natural order.
        size: (width, height) that every frame is resampled to; None keeps each one's own.

    Raises:
        AllWeatherError: for an unknown kind or a path without images.
    """
    if kind != "folder":
        raise unknown("kind of stream", kind, ["folder"])
    return open_files([path], size)


__all__ = ["Frame", "Stream", "load_stream", "open_files"]
