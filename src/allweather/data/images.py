"""Label images as integers and as classes, and JSON that is short, stable and takes any file's name."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from allweather.classes import ClassSet
from allweather.errors import ImageError
from allweather.rgb import DAMAGE, open_image
from allweather.writing import write_bytes

INDEX_MODES = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L", "LA", "PA")
MISSING = -2  # no meaning
PNG, PNG_BITS, PNG_KIND = b"\x89PNG\r\n\x1a\n", 24, 25  # how a file begins, where its depth stands, and its kind


def read_labels(path: Path) -> np.ndarray:
    """A label image as H×W integers: palette indices, or grey values of 8 to 32 bits.

    int16 where the file has at most eight bits a pixel, else int32, so that −1 can be written into it.

    Raises:
        ImageError: when it cannot be read, or has colours or grey of fewer bits instead of indices.
    """
    return indices_of(open_image(path), path)


def is_whole(path: Path) -> bool:
    """Whether a .png or .jpg file is there from its first byte to its last, without decoding it."""
    try:
        content = path.read_bytes()
        if path.suffix.lower() != ".png":
            return content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9")
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()  # every part's checksum, to the end
    except DAMAGE:
        return False
    return True


def indices_of(image: Image.Image, path: Path) -> np.ndarray:
    """As `read_labels`, of an image that is open already; `path` is for the message.

    Raises:
        ImageError: when it has colours or grey of fewer bits instead of indices.
    """
    if image.mode not in INDEX_MODES:
        raise ImageError(f"{path}: expected label indices (grey or palette image), got mode {image.mode}.")
    if (bits := _grey_bits(image, path)) < 8:
        raise ImageError(
            f"{path}: expected label indices, a palette image or grey of 8 bits or more; got {bits}-bit grey, whose "
            "numbers may be indices or shares of white. Save the indices as 8 bits, or with a palette."
        )
    if image.mode in ("LA", "PA"):
        image = image.getchannel(0)
    return np.asarray(image).astype(np.int16 if image.mode in ("L", "P", "1") else np.int32)


def _grey_bits(image: Image.Image, path: Path) -> int:
    """Bits of a grey pixel; of 2 and 4 in a PNG, Pillow gives numbers that are spread over 0..255."""
    if image.mode != "L":
        return 1 if image.mode == "1" else 8
    with path.open("rb") as file:
        head = file.read(PNG_KIND + 1)
    return head[PNG_BITS] if head.startswith(PNG) and head[PNG_KIND] == 0 else 8  # 0: grey


def class_indices(values: np.ndarray, classes: ClassSet, path: Path) -> np.ndarray:
    """Class indices of a file's values, integers H×W: int16 H×W, −1 where they are to be ignored.

    Raises:
        ImageError: for a value that is neither a class nor the set's ignore value.
    """
    table = {**{index: index for index in range(len(classes))}, classes.ignore: -1}
    expected = f"0..{len(classes) - 1} ({classes.name}) and {classes.ignore} for ignored pixels"
    return lookup(values, table, path, expected)


def lookup(values: np.ndarray, table: Mapping[int, int], path: Path, expected: str) -> np.ndarray:
    """Every value, integers H×W, through a table of −1..65535: int16 H×W; `path` and `expected` are for the message.

    Raises:
        ImageError: for values that are not in it, the first five named.
    """
    every = np.full(65539, MISSING, np.int16)  # 0..65535, 65536 or more, then from the end: −1, −2 or less
    for value, meaning in table.items():
        every[value] = meaning
    outside = values.size and (values.min() < -2 or values.max() > 65536)
    found = np.take(every, np.clip(values.astype(np.int64), -2, 65536) if outside else values)
    if (found == MISSING).any():
        wrong = ", ".join(map(str, np.unique(values[found == MISSING])[:5]))
        raise ImageError(
            f"{path}: unexpected label values {wrong}; expected {expected}. Is it another kind of label file?"
        )
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON with stable keys and one final newline, whole or not at all."""
    write_bytes(path, encode_json(spell_json(content)), durable=True)


def encode_json(text: str) -> bytes:
    """One line of JSON or many as UTF-8; what a file's name holds beside UTF-8 is escaped and read back as it was."""
    return f"{text}\n".encode(errors="backslashreplace")


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
