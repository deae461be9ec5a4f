"""Label images, and results written whole or not at all."""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from allweather.errors import AllWeatherError
from allweather.rgb import ImageError, open_image


def read_labels(path: Path) -> np.ndarray:
    """A label image as H×W integers: palette indices or grey values, 8 or 16 bit.

    Raises:
        ImageError: when it cannot be read, or has colours instead of indices.
    """
    image = open_image(path)
    if image.mode not in ("L", "P", "I", "I;16", "1"):
        raise ImageError(f"{path}: expected label indices (grey or palette image), got mode {image.mode}.")
    return np.array(image).astype(np.int64)


def is_whole(path: Path) -> bool:
    """Whether an image file is there and can be decoded to its last pixel."""
    try:
        open_image(path)
    except ImageError:
        return False
    return True


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
