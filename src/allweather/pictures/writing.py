"""Pictures written whole or not at all."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from allweather.writing import write_bytes


def write_image(path: Path, pixels: np.ndarray, palette: list[int] | None = None) -> None:
    """Writes uint8 H×W or H×W×3, or uint16 H×W, as the suffix says, whole or not at all.

    Args:
        palette: red, green and blue of each value in turn; the file still holds the values.

    Raises:
        AllWeatherError: when the disk is full or the folder cannot be written.
    """
    write_bytes(path, encode_image(pixels, "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG", palette))


def encode_image(
    pixels: np.ndarray, kind: Literal["PNG", "JPEG"] = "PNG", palette: list[int] | None = None, quality: int = 92
) -> bytes:
    """The bytes of a picture file; arguments as of `write_image`, `quality` 1 to 95 of JPEG."""
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette)
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=quality)
    return buffer.getvalue()
