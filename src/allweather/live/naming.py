"""Which live source a name means."""

import re
from pathlib import Path

from allweather.errors import InputError, SettingsError
from allweather.live.camera import CameraSource
from allweather.live.network import SCHEMES, NetworkSource, public
from allweather.live.sources import FileSource, FolderSource, Size, Source, check_positive
from allweather.rgb import EXTENSIONS
from allweather.sizes import check_asked


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
