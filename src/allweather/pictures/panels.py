"""Pictures side by side, each under a caption: what a film of input, source and adapted prediction shows."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from allweather.errors import InputError

PAPER, INK = (24, 24, 24), (235, 235, 235)
SMALLEST, LARGEST = 10, 32  # pixels of a caption's letters, a twenty-fourth of the picture's height between them


def side_by_side(pictures: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """The pictures in a row, each under its caption, as uint8 (bar + H)×(sum of the widths and gaps)×3.

    Args:
        pictures: H×W×3 uint8, all of one height.
        captions: one a picture; cut short with an ellipsis where it is wider than its picture. Without any text at all
            there is no bar.

    Raises:
        InputError: for no picture, pictures of several heights or another type, or another number of captions.
    """
    height = _height(pictures, captions)
    gap = np.full((height, max(2, height // 180), 3), PAPER, np.uint8)
    row = np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)
    if not any(captions):
        return row
    bar = _bar(tuple(captions), tuple(picture.shape[1] for picture in pictures), gap.shape[1], height)
    return np.concatenate([bar, row])


def fitted(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture H×W×3 uint8 at another size: as large as fits, a pixel at least, the rest dark."""
    if picture.shape[:2] == (height, width):
        return picture
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    canvas = Image.new("RGB", (width, height), PAPER)
    inside = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
    canvas.paste(inside, ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.asarray(canvas)


def _height(pictures: Sequence[np.ndarray], captions: Sequence[str]) -> int:
    if not pictures or len(pictures) != len(captions):
        raise InputError(f"expected pictures and a caption for each, got {len(pictures)} and {len(captions)}.")
    shapes = [picture.shape for picture in pictures]
    single = all(len(shape) == 3 and shape[2] == 3 and shape[0] == shapes[0][0] for shape in shapes)
    if not single or any(picture.dtype != np.uint8 for picture in pictures):
        kinds = ", ".join(f"{picture.shape} {picture.dtype}" for picture in pictures)
        raise InputError(f"expected H×W×3 uint8 pictures of one height, got {kinds}.")
    return shapes[0][0]


@lru_cache(maxsize=8)  # most films never change a caption
def _bar(captions: tuple[str, ...], widths: tuple[int, ...], gap: int, height: int) -> np.ndarray:
    letters = min(max(height // 24, SMALLEST), LARGEST)
    font = ImageFont.load_default(letters)
    image = Image.new("RGB", (sum(widths) + gap * (len(widths) - 1), round(1.6 * letters)), PAPER)
    draw, left, margin = ImageDraw.Draw(image), 0, letters // 2
    for caption, width in zip(captions, widths, strict=True):
        text = _shortened(caption, width - 2 * margin, font)
        draw.text((left + margin, image.height / 2), text, INK, font, anchor="lm")
        left += width + gap
    return np.asarray(image)


def _shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, or as much of it as fits with an ellipsis."""
    kept = text
    while kept and font.getlength(kept if kept == text else kept + "…") > width:
        kept = kept[:-1]
    return kept if kept == text else kept + "…" if kept else ""
