"""Pictures written whole or not at all."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from allweather.errors import ImageError
from allweather.sizes import LARGEST
from allweather.writing import write_bytes


def write_image(path: Path, pixels: np.ndarray, palette: list[int] | None = None) -> None:
    """Writes uint8 H×W or H×W×3, or uint16 H×W, as the suffix says, whole or not at all.

    Args:
        palette: red, green and blue of each value in turn; the file still holds the values.

    Raises:
        ImageError: as `encode_image`.
        AllWeatherError: when the disk is full or the folder cannot be written.
    """
    try:
        content = encode_image(pixels, "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG", palette)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    write_bytes(path, content)


def encode_image(
    pixels: np.ndarray, kind: Literal["PNG", "JPEG"] = "PNG", palette: list[int] | None = None, quality: int = 92
) -> bytes:
    """The bytes of a picture file; arguments as of `write_image`, `quality` 1 to 95 of JPEG.

    Raises:
        ImageError: for a JPEG with a side of more than 65500 pixels.
    """
    image = Image.fromarray(pixels)
    if kind == "JPEG" and max(image.size) > LARGEST:
        raise ImageError(
            f"a JPEG has at most {LARGEST} pixels a side, this picture {image.width}×{image.height}. Save a PNG; "
            "of adapt's outputs overlays are JPEGs: leave them out, --write labels,color."
        )
    if palette is not None:
        image.putpalette(palette)
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=quality)
    return buffer.getvalue()
