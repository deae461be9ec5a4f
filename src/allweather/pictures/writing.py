"""Pictures and other files written whole or not at all."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from allweather.errors import AllWeatherError


def write_image(path: Path, pixels: np.ndarray, palette: list[int] | None = None) -> None:
    """Writes uint8 H×W or H×W×3, or uint16 H×W, as the suffix says, whole or not at all.

    Args:
        palette: red, green and blue of each value in turn; the file still holds the values.

    Raises:
        AllWeatherError: when the disk is full or the folder cannot be written.
    """
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG", quality=92)
    write_bytes(path, buffer.getvalue())


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
