"""What visitors send, checked as data before anything is made of it: names, bytes, formats, pixels."""

import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from allweather.data.refused import why_unopened
from allweather.data.video import Video
from allweather.errors import InputError, first_line
from allweather.pictures.pyav import load_pyav
from allweather.rgb import DAMAGE, FORMATS, PAGES, has_pages, load, rgb_of, to_unit
from allweather.serve.limits import Limits

CLIPS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
_CONTAINER = re.compile(rb"....(?:ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3", re.S)  # MP4 and MOV, Matroska and WebM
_FOREIGN = re.compile(rb"<script|<\?php|<!doctype html|%PDF-[12]\.", re.I)
ON_PAGE, DRAWN = 1024, 4096  # pixels that a side has at most, on the page and in an overlay's file
Reason = Literal["name", "bytes", "pixels", "format", "foreign", "damaged", "folder"]


class UploadError(InputError):
    """An upload that is refused.

    Attributes:
        reason: what was wrong, in one word.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Held:
    """A picture of a visitor's.

    Attributes:
        name: what the page calls it.
        pixels: H×W×3 uint8 at the size that the network is given.
        size: (width, height) of the picture as it came.
        label: what its label image is called, without suffix: as `allweather adapt` calls it.
        shape: (width, height) that give the shape in which it is shown.
    """

    name: str
    pixels: np.ndarray = field(repr=False)
    size: tuple[int, int]
    label: str = ""
    shape: tuple[int, int] | None = None

    def at(self, size: tuple[int, int]) -> np.ndarray:
        """H×W×3 uint8 of that size, (width, height), from what the network is given."""
        return np.asarray(Image.fromarray(self.pixels).resize(size, Image.Resampling.BILINEAR))

    @property
    def on_page(self) -> tuple[int, int]:
        """(width, height) at which the page shows it."""
        return _within(self.shape or self.size, ON_PAGE)

    @property
    def drawn(self) -> tuple[int, int]:
        """(width, height) at which it is drawn for a file: its own, as far as that goes."""
        return _within(self.size, DRAWN)

    @property
    def image(self) -> Tensor:
        """As a network takes it: 3×H×W float32, RGB in [0, 1]."""
        return to_unit(Image.fromarray(self.pixels))


def _within(size: tuple[int, int], longest: int) -> tuple[int, int]:
    share = min(1.0, longest / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def check_name(name: str) -> str:
    """The file's name; only its ending is ever used, and only to tell a clip from a picture.

    Raises:
        UploadError: for a name with folders in it, with characters that no name needs, or of 200 characters and more.
    """
    if re.search(r"[/\\\x00-\x1f\x7f]", name) or name in ("..", ".") or len(name) >= 200:
        raise UploadError("name", f"{name[:60]!r} is no file's name: expected one without folders, such as frame.png.")
    return name


def read_picture(
    content: bytes, limits: Limits, name: str = "the picture", say: Callable[[str], object] = warnings.warn
) -> Image.Image:
    """The picture as upright 8-bit RGB; its pixels are counted before they are decoded.

    Args:
        say: told in words what of it is left out.

    Raises:
        UploadError: for too many bytes or pixels, another format, a damaged file, or one that is a page, a document
            or an archive as well.
    """
    if len(content) > limits.picture_bytes:
        raise UploadError("bytes", f"{name} has {len(content)} bytes: expected at most {limits.picture_bytes}.")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_pixels(image.size, limits.pixels, name)
            _check_alone(content, name)
            load(image)
            picture, more = rgb_of(image, name), has_pages(image)
    except (UnidentifiedImageError, ImportError) as error:  # other libraries replace Image.open and try plugins
        raise UploadError("format", f"{name} is no picture: expected {', '.join(FORMATS)}.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UploadError("pixels", f"{name} has too many pixels: expected at most {limits.pixels}.") from error
    except DAMAGE as error:
        raise UploadError("damaged", f"{name} cannot be read: {first_line(error)}. Save it again.") from error
    if more:
        say(PAGES)
    return picture


def hold(image: Image.Image, name: str, size: tuple[int, int] | None, limits: Limits, label: str = "") -> Held:
    """The picture at the size that the network is given."""
    wanted = network_size(image.size, size, limits)
    small = image if image.size == wanted else image.resize(wanted, Image.Resampling.BILINEAR)
    return Held(name, np.array(small), image.size, label)


def network_size(stored: tuple[int, int], size: tuple[int, int] | None, limits: Limits) -> tuple[int, int]:
    """(width, height) that the network is given: `size`, or the picture's own as far as the limit goes."""
    if size is not None:
        return size
    share = min(1.0, sqrt(limits.network_pixels / (stored[0] * stored[1])))
    return max(16, round(stored[0] * share)), max(16, round(stored[1] * share))


def read_clip(
    path: Path, name: str, size: tuple[int, int] | None, limits: Limits, say: Callable[[str], None], above: str = ""
) -> Iterator[Held]:
    """The first frames of a clip, as many as are kept; the file may be removed when they have been read.

    Args:
        name: that messages call it by.
        say: told in words what of it is left out.
        above: what stands before the frames' numbers in their labels' names.

    Raises:
        UploadError: for another format than MP4, MOV, Matroska and WebM, and for frames of too many pixels.
        ImageError: for a clip that cannot be decoded.
        MissingLibraryError: where PyAV, which reads clips, is not installed.
    """
    with path.open("rb") as file:
        start = file.read(16)
    if not _CONTAINER.match(start):  # a playlist in a clip's clothes would name other files
        raise UploadError("format", f"{name} is no clip: expected {', '.join(CLIPS)}.")
    _check_frames(path, name, limits)
    video = Video(path)
    if video.hdr:
        say(f"{name} is HDR, and read as ordinary video, in wrong colors: convert it first.")
    if video.squeezed(size):
        say(f"the pixels of {name} are not square: the network sees it squeezed.")
    for frame in video:
        if frame.index >= limits.pictures:
            say(f"only the first {limits.pictures} frames of {name} are kept.")
            return
        image = Image.fromarray(frame.pixels)
        held = hold(image, f"frame {frame.index} of {name}", size, limits, f"{above}{frame.index:06d}")
        yield replace(held, shape=video.shown)
    if video.damage:
        say(f"{name}: {video.damage}.")


def read_file(
    path: Path, name: str, size: tuple[int, int] | None, limits: Limits, say: Callable[[str], None], label: str
) -> Held:
    """The picture of a file.

    Args:
        say: told in words what of it is left out.

    Raises:
        UploadError: as `read_picture`.
    """
    try:
        if (count := path.stat().st_size) > limits.picture_bytes:
            raise UploadError("bytes", f"{name} has {count} bytes: expected at most {limits.picture_bytes}.")
        content = path.read_bytes()
    except OSError as error:
        raise UploadError("damaged", f"{name} cannot be read ({error.strerror or error}).") from error
    picture = read_picture(content, limits, name, lambda text: say(f"{name}: {text}"))
    return hold(picture, name, size, limits, label)


def _check_pixels(size: tuple[int, int], most: int, name: str) -> None:
    if size[0] * size[1] > most:
        raise UploadError("pixels", f"{name} is {size[0]}×{size[1]}: expected at most {most} pixels. Make it smaller.")


def _check_alone(content: bytes, name: str) -> None:
    """Refuses a picture whose bytes are another kind of file too."""
    found = _FOREIGN.search(content)
    kind = "an archive" if zipfile.is_zipfile(io.BytesIO(content)) else "a page or a document" if found else ""
    if kind:
        raise UploadError("foreign", f"{name} is a picture and {kind} at once. Save the picture alone.")


def _check_frames(path: Path, name: str, limits: Limits) -> None:
    """Reads what the clip says of its frames' size; no frame is decoded."""
    av = load_pyav()
    try:
        with av.open(f"file:{path}") as container:
            sizes = [(stream.width, stream.height) for stream in container.streams.video]
    except (av.FFmpegError, UnicodeError) as error:
        raise UploadError("damaged", f"{name}: not a readable video ({why_unopened(path, error)}).") from error
    for size in sizes:
        _check_pixels(size, limits.clip_pixels, name)
