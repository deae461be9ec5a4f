"""Image files of any kind as RGB in [0, 1]; what cannot be read is named."""

import io
import struct
import warnings
import zlib
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from allweather.errors import ImageError, InputError, first_line

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")  # theirs; no other's reader, for that of EPS starts a program
LOWEST, HIGHEST = -0.1, 1.5  # resampling overshoots [0, 1] a little; normalised values and bytes go far beyond
DEEP_GREY = ("PNG", "PPM")  # formats of which older Pillows give 16 bits as mode I; of others it is 32 bits, or signed
DEEP_TOP = 65535  # what 16 bits hold
UNUSED_FROM = 1 << 14  # a picture of 16 bits with nothing from here on looks like a camera's 10, 12 or 14 bits
DEEP = "16 bits"  # the note of `load` on a picture: Pillow decodes color of 16 bits as 8
ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held
BITS, PLANES = 0x0102, 0x011C  # TIFF's tags of bits per sample and of the channels' order: 2 if one after another
TURNS = {  # what makes the picture upright, by that tag
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
PAGES = (
    "of a picture with several pages or frames only the first is read. Save each page as a file of its own, and an "
    "animation as a video."
)  # of one text, so that a stream of them is told once
DAMAGE = (  # what Pillow raises for a file that is not as it should be
    OSError, ValueError, SyntaxError, ImportError, EOFError, RuntimeError, LookupError, TypeError, AttributeError,
    ArithmeticError, AssertionError, struct.error, zlib.error, Image.DecompressionBombError, Warning,
)  # fmt: skip


def read_rgb(path: Path, size: tuple[int, int] | None = None) -> tuple[Tensor, tuple[int, int]]:
    """The image as 3×H×W float32, RGB in [0, 1], and its stored (width, height).

    Grey becomes three equal channels, transparency is dropped, 16-bit values are divided by 65535, and the camera's
    orientation tag is followed.

    Args:
        size: (width, height) to resample to (bilinear, antialiased when it shrinks); None keeps the stored size.

    Raises:
        ImageError: for a file that is missing, empty, truncated or no image of `FORMATS`.
    """
    image = read_upright(path)
    return to_unit(image, size), image.size


def read_upright(path: Path) -> Image.Image:
    """The image as 8-bit RGB, upright.

    Raises:
        ImageError: as `open_image` and `rgb_of`.
    """
    return rgb_of(open_image(path), str(path))


def rgb_of(image: Image.Image, name: str = "the picture") -> Image.Image:
    """Any PIL image as 8-bit RGB, upright; itself where it is that already.

    Raises:
        ImageError: for numbers of unknown range: floats that are not in [0, 1], and integers of more than 16 bits; and
            for a file that cannot be decoded. `name` is for the message.
    """
    try:
        load(image)  # which turns a TIFF upright by itself
    except DAMAGE as error:
        raise ImageError(f"{name}: not a readable image ({first_line(error)}).") from error
    _check_depth(image, name)
    turn = TURNS.get(_orientation(image))
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image), name))
    image = image if image.mode == "RGB" else image.convert("RGB")
    if image.info.get(DEEP):
        _warn_dim(int(np.asarray(image).max(initial=0)) << 8 | 255)  # the most that it may have been
    return image


def load(image: Image.Image) -> None:
    """Decodes a picture, and notes that its file has 16 bits."""
    tags, tiles = getattr(image, "tag_v2", {}), getattr(image, "tile", ())
    if tags.get(PLANES) == 2 and max(tags.get(BITS, (8,))) > 8 and any(tile[0] == "raw" for tile in tiles):
        raise ValueError("uncompressed planes of 16 bits, which Pillow decodes to noise: save it compressed")
    stored = str([tile[3] for tile in tiles])  # ["RGB;16B"]; of a PPM [("RGB", 65535)]
    image.load()
    if ";16" in stored or f"'RGB', {DEEP_TOP}" in stored:
        image.info[DEEP] = True


def _orientation(image: Image.Image) -> int:
    """How the camera was held; 1, upright, where nothing that can be read says so."""
    try:
        said = image.getexif().get(ORIENTATION, 1)
    except DAMAGE:
        return 1
    return said if isinstance(said, int) else 1


def to_unit(image: Image.Image, size: tuple[int, int] | None = None) -> Tensor:
    """An RGB image as 3×H×W float32 in [0, 1], resampled to (width, height)."""
    if size is not None and size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image))  # a copy: PIL's own buffer is read-only
    return pixels.permute(2, 0, 1).contiguous().float() / 255


def open_image(path: Path) -> Image.Image:
    """The decoded image; of several pages the first, with a warning.

    Raises:
        ImageError: for a file that is missing, empty, truncated or no image of `FORMATS`.
    """
    try:
        image = Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS)  # no file stays open when decoding fails
        load(image)
    except DAMAGE as error:
        raise ImageError(f"{path}: not a readable image ({_reason(path, error)}).") from error
    if has_pages(image):
        warnings.warn(PAGES, stacklevel=1)
    return image


def has_pages(image: Image.Image) -> bool:
    """Whether a file holds more pictures than one; the preview that phones put into a JPEG does not count."""
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def _reason(path: Path, error: Exception) -> str:
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError | ImportError):  # other libraries replace Image.open and try plugins
        return f"it is none of {', '.join(FORMATS)}"
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error)


def check_unit_range(low: float, high: float, where: str = "", *, bytes_too: bool = False) -> None:
    """Refuses RGB floats whose lowest and highest value are not in [0, 1], a little apart; not finite ones pass.

    Args:
        where: what the message begins with.
        bytes_too: whether uint8 would do as well.

    Raises:
        InputError: saying what they look like.
    """
    expected = f"{where}expected RGB floats in [0, 1], got {low:.3g}..{high:.3g}"
    if isfinite(low) and low < min(LOWEST, LOWEST * high):
        raise InputError(
            f"{expected}: these look normalised already. Pass the picture as it is; a network's own mean and standard "
            "deviation are applied for you."
        )
    if isfinite(high) and high > HIGHEST:
        shallow = f"0..255: divide by 255{', or pass it as uint8' if bytes_too else ''}"
        deep = "0..65535: divide by 65535" if high > 255 else shallow
        raise InputError(f"{expected}, which looks like {deep}.")


def _eight_bits(values: np.ndarray, name: str) -> np.ndarray:
    """16-bit grey values, or floats in [0, 1], as uint8."""
    floats = values.dtype.kind == "f"
    if floats and values.size:
        _check_floats(float(values.min()), float(values.max()), name)
    if not floats:
        _warn_dim(values.max(initial=0))
    top = 1 if floats else DEEP_TOP
    return np.clip(values.astype(np.float64) * (255 / top), 0, 255).round().astype(np.uint8)


def _warn_dim(highest: int) -> None:
    if 0 < highest < UNUSED_FROM:
        warnings.warn(
            f"a picture of 16 bits with no value above {UNUSED_FROM - 1} is read with {DEEP_TOP} as white, so nearly "
            "black. If the camera gives 12 bits, save values · 16; if it gives 14, values · 4.",
            stacklevel=1,
        )  # of one text, so that a stream of them is told once


def _check_floats(low: float, high: float, name: str) -> None:
    """Refuses floats whose range is not [0, 1]; NaN is both their lowest and their highest."""
    if not (isfinite(low) and isfinite(high)):
        raise ImageError(f"{name}: expected grey floats in [0, 1], got NaN or infinite ones. Replace them first.")
    if low < LOWEST or high > HIGHEST:
        raise ImageError(
            f"{name}: expected grey floats in [0, 1], got {low:.3g}..{high:.3g}, of unknown range. Bring them to "
            "[0, 1], or save bytes."
        )


def _check_depth(image: Image.Image, name: str) -> None:
    """Refuses whole numbers of other depths, whose range nothing says."""
    if image.mode == "I" and image.format not in DEEP_GREY:
        low, high = image.getextrema()
        raise ImageError(
            f"{name}: expected grey of 8 or 16 bits, got whole numbers {low}..{high} of unknown range. "
            "Save bytes, 0..255, or 16 bits, 0..65535: Image.fromarray(values.astype(np.uint8))."
        )
