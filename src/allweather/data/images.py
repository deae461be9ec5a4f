"""Image files: reading any of them as RGB in [0, 1], and writing results whole or not at all."""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from allweather.errors import AllWeatherError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class ImageError(AllWeatherError):
    """One image cannot be read; the others of its stream can."""


def read_rgb(path: Path, size: tuple[int, int] | None = None) -> tuple[Tensor, tuple[int, int]]:
    """The image as 3×H×W float32, RGB in [0, 1], and its stored (width, height).

    Grey becomes three equal channels, transparency is dropped, 16-bit values are divided by 65535, and the camera's
    orientation tag is followed.

    Args:
        size: (width, height) to resample to (bilinear, antialiased when it shrinks); None keeps the stored size.

    Raises:
        ImageError: for a file that is missing, empty, truncated or no image.
    """
    image = ImageOps.exif_transpose(_open(path))
    stored = image.size
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    image = image.convert("RGB")
    if size is not None and size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image))  # a copy: PIL's own buffer is read-only
    return pixels.permute(2, 0, 1).contiguous().float() / 255, stored


def read_labels(path: Path) -> np.ndarray:
    """A label image as H×W integers: palette indices or grey values, 8 or 16 bit.

    Raises:
        ImageError: when it cannot be read, or has colours instead of indices.
    """
    image = _open(path)
    if image.mode not in ("L", "P", "I", "I;16", "1"):
        raise ImageError(f"{path}: expected label indices (grey or palette image), got mode {image.mode}.")
    return np.array(image).astype(np.int64)


def write_image(path: Path, pixels: np.ndarray, palette: list[int] | None = None) -> None:
    """Writes uint8 H×W or H×W×3, or uint16 H×W, as the suffix says, whole or not at all.

    Raises:
        AllWeatherError: when the disk is full or the folder cannot be written.
    """
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG" if path.suffix.lower() == ".jpg" else "PNG", quality=92)
    write_bytes(path, buffer.getvalue())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON with stable keys and one final newline, whole or not at all."""
    write_bytes(path, f"{spell_json(content)}\n".encode())


def spell_json(content: Any, indent: int = 0) -> str:
    """JSON with one key a line, and one item a line in lists that hold more than scalars: short, and kind to diffs."""
    deep = " " * (indent + 1)
    if isinstance(content, Mapping) and content:
        rows = [f"{deep}{_flat(str(key))}: {spell_json(value, indent + 1)}" for key, value in content.items()]
        return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"
    if isinstance(content, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in content):
        return "[\n" + ",\n".join(deep + _flat(item) for item in content) + "\n" + " " * indent + "]"
    return _flat(content)


def _flat(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes under a temporary name, then renames.

    Raises:
        AllWeatherError: when it cannot be written; nothing of it is left then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        _discard(temporary)
        raise AllWeatherError(
            f"cannot write {path}: {error.strerror or error}. What was written before is complete; make room or choose "
            "another folder, then run again with --resume."
        ) from error
    except BaseException:
        _discard(temporary)
        raise


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the folder itself is gone or closed to us: there is nothing of ours in it


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(path.read_bytes()))  # no file stays open when decoding fails
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not a readable image ({_reason(path, error)}).") from error
    return image


def _reason(path: Path, error: Exception) -> str:
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        return "of no known format"
    return (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """16-bit or float grey values as uint8; floats are taken as [0, 1] where none exceeds 1."""
    top = 1.0 if values.dtype.kind == "f" and values.max(initial=0) <= 1 else 65535.0
    return np.clip(values.astype(np.float64) * (255 / top), 0, 255).round().astype(np.uint8)
