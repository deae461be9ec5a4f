"""What visitors send, checked as data before anything is made of it: names, bytes, formats, pixels."""

import io
import logging
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from allweather.data.video import Video
from allweather.errors import InputError, first_line
from allweather.pictures.pyav import load_pyav
from allweather.rgb import DAMAGE, rgb_of, to_unit
from allweather.serve.limits import Limits

LOG = logging.getLogger(__name__)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")  # no format whose reader starts a program, as that of EPS
CLIPS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
_CONTAINER = re.compile(rb"....(?:ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3", re.S)  # MP4 and MOV, Matroska and WebM
_FOREIGN = re.compile(rb"<script|<\?php|<!doctype html|%PDF-[12]\.", re.I)
Reason = Literal["name", "bytes", "pixels", "format", "foreign", "damaged", "folder"]


@cache
def uploads_folder() -> Path:
    """Where the page's uploads lie until they are read; one per process, gone with it.

    The page's library makes folders there when it is imported, so this must be called before.
    """
    folder = TemporaryDirectory(prefix="allweather-serve-")
    _kept.append(folder)
    os.environ["GRADIO_TEMP_DIR"] = folder.name
    return Path(folder.name)


_kept: list["TemporaryDirectory[str]"] = []


class UploadError(InputError):
    """An upload that is refused.

    Attributes:
        reason: what was wrong, in one word.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Held:
    """A picture of a visitor's.

    Attributes:
        name: what the page calls it.
        pixels: H×W×3 uint8 at the size that the network is given.
        size: (width, height) of the picture as it came.
    """

    name: str
    pixels: np.ndarray = field(repr=False)
    size: tuple[int, int]

    @property
    def image(self) -> Tensor:
        """As a network takes it: 3×H×W float32, RGB in [0, 1]."""
        return to_unit(Image.fromarray(self.pixels))


def check_name(name: str) -> str:
    """The file's name; only its ending is ever used, and only to tell a clip from a picture.

    Raises:
        UploadError: for a name with folders in it, with characters that no name needs, or of 200 characters and more.
    """
    if re.search(r"[/\\\x00-\x1f\x7f]", name) or name in ("..", ".") or len(name) >= 200:
        raise UploadError("name", f"{name[:60]!r} is no file's name: expected one without folders, such as frame.png.")
    return name


def read_picture(content: bytes, limits: Limits, name: str = "the picture") -> Image.Image:
    """The picture as upright 8-bit RGB; its pixels are counted before they are decoded.

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
            image.load()
            return rgb_of(image, name)
    except (UnidentifiedImageError, ImportError) as error:  # other libraries replace Image.open and try plugins
        raise UploadError("format", f"{name} is no picture: expected {', '.join(FORMATS)}.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UploadError("pixels", f"{name} has too many pixels: expected at most {limits.pixels}.") from error
    except DAMAGE as error:
        raise UploadError("damaged", f"{name} cannot be read: {first_line(error)}. Save it again.") from error


def hold(image: Image.Image, name: str, size: tuple[int, int] | None, limits: Limits) -> Held:
    """The picture at the size that the network is given."""
    wanted = network_size(image.size, size, limits)
    small = image if image.size == wanted else image.resize(wanted, Image.Resampling.BILINEAR)
    return Held(name, np.array(small), image.size)


def network_size(stored: tuple[int, int], size: tuple[int, int] | None, limits: Limits) -> tuple[int, int]:
    """(width, height) that the network is given: `size`, or the picture's own as far as the limit goes."""
    if size is not None:
        return size
    share = min(1.0, sqrt(limits.network_pixels / (stored[0] * stored[1])))
    return max(16, round(stored[0] * share)), max(16, round(stored[1] * share))


def read_clip(path: Path, size: tuple[int, int] | None, limits: Limits) -> Iterator[Held]:
    """The first frames of a clip, as many as are kept; the file may be removed when they have been read.

    Raises:
        UploadError: for another format than MP4, MOV, Matroska and WebM, and for frames of too many pixels.
        ImageError: for a clip that cannot be decoded.
        MissingLibraryError: where PyAV, which reads clips, is not installed.
    """
    with path.open("rb") as file:
        start = file.read(16)
    if not _CONTAINER.match(start):  # a playlist in a clip's clothes would name other files
        raise UploadError("format", f"{path.name} is no clip: expected {', '.join(CLIPS)}.")
    _check_frames(path, limits)
    held = 0
    for frame in Video(path):
        picture = hold(Image.fromarray(frame.pixels), f"frame {frame.index}", size, limits)
        held += picture.pixels.nbytes
        if frame.index >= limits.pictures or held > limits.held_bytes:
            return
        yield picture


def read_uploads(
    paths: list[tuple[str, Path]], size: tuple[int, int] | None, limits: Limits
) -> tuple[list[Held], list[str]]:
    """Pictures of files by their names, as many as are kept, and what was refused of them, in words.

    A single clip gives its frames. A file that is refused leaves the others as they are.

    Raises:
        UploadError: where nothing is left.
    """
    held: list[Held] = []
    refused: list[str] = []
    for name, path in paths[: limits.pictures]:
        try:
            check_name(name)
            if path.suffix.lower() in CLIPS:
                held += read_clip(path, size, limits)
            else:
                held.append(hold(read_picture(_bounded(path, limits, name), limits, name), name, size, limits))
        except InputError as error:
            LOG.warning("refused an upload: %s", error)
            refused.append(str(error).replace(str(path), name))
        if bytes_of(held) > limits.held_bytes:
            refused.append(f"only the first {len(held)} pictures are kept: more than {limits.held_bytes} bytes.")
            break
    if len(paths) > limits.pictures:
        refused.append(f"only the first {limits.pictures} of {len(paths)} files are kept.")
    if not held:
        raise UploadError("format", " ".join(refused[:3]) or "expected a picture, pictures, or a clip.")
    return held, refused


def bytes_of(held: list[Held]) -> int:
    """What pictures take in memory."""
    return sum(picture.pixels.nbytes for picture in held)


def _bounded(path: Path, limits: Limits, name: str) -> bytes:
    if (count := path.stat().st_size) > limits.picture_bytes:
        raise UploadError("bytes", f"{name} has {count} bytes: expected at most {limits.picture_bytes}.")
    return path.read_bytes()


def _check_pixels(size: tuple[int, int], most: int, name: str) -> None:
    if size[0] * size[1] > most:
        raise UploadError("pixels", f"{name} is {size[0]}×{size[1]}: expected at most {most} pixels. Make it smaller.")


def _check_alone(content: bytes, name: str) -> None:
    """Refuses a picture whose bytes are another kind of file too."""
    found = _FOREIGN.search(content)
    kind = "an archive" if zipfile.is_zipfile(io.BytesIO(content)) else "a page or a document" if found else ""
    if kind:
        raise UploadError("foreign", f"{name} is a picture and {kind} at once. Save the picture alone.")


def _check_frames(path: Path, limits: Limits) -> None:
    """Reads what the clip says of its frames' size; no frame is decoded."""
    av = load_pyav()
    try:
        with av.open(f"file:{path}") as container:
            sizes = [(stream.width, stream.height) for stream in container.streams.video]
    except (av.FFmpegError, UnicodeError) as error:
        raise UploadError("damaged", f"{path.name} cannot be read: {first_line(error)}.") from error
    for size in sizes:
        _check_pixels(size, limits.clip_pixels, path.name)
