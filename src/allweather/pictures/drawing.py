"""Labels as colors, and colors over a picture, a stripe of rows at a time."""

import numpy as np
from PIL import Image
from torch import Tensor

from allweather.classes import ClassSet
from allweather.pictures.enlarge import labels_at
from allweather.values import check_number

STRIPE = 1 << 18  # pixels of one stripe


def colorize(labels: np.ndarray, classes: ClassSet) -> np.ndarray:
    """Class indices H×W as colors H×W×3 uint8; values that are no class are black."""
    palette = palette_of(classes)
    if labels.dtype != np.uint8 or len(palette) > 256:
        known = (labels >= 0) & (labels < len(palette))
        return np.where(known[..., None], palette[np.where(known, labels, 0)], np.uint8(0))
    image = Image.fromarray(labels)
    image.putpalette(palette.ravel().tolist())
    return np.asarray(image.convert("RGB"))  # in a twentieth of the time of indexing


def overlay_of(logits: Tensor, picture: np.ndarray, classes: ClassSet, opacity: float = 0.5) -> np.ndarray:
    """A prediction C×h×w as colors over a picture of any size, H×W×3 uint8.

    Args:
        opacity: of the colors, in [0, 1], in 256 steps.

    Raises:
        NotFiniteError: for logits of which no class can be told.
    """
    labels = labels_at(logits, (picture.shape[1], picture.shape[0]))
    return blend(picture, colorize(labels, classes), opacity)


def blend(image: np.ndarray, colors: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """`colors` over the image, both H×W×3 uint8, in whole numbers, halves rounded up.

    Raises:
        SettingsError: for an `opacity` outside [0, 1].
    """
    check_number("opacity", opacity, low=0, high=1)
    mixed = np.empty_like(image)
    share = np.uint16(round(256 * opacity))
    height = max(1, STRIPE // max(1, image.shape[1]))
    for top in range(0, len(image), height):
        rows = slice(top, top + height)
        sums = image[rows] * (np.uint16(256) - share)
        sums += colors[rows] * share
        sums += np.uint16(128)
        mixed[rows] = sums >> 8
    return mixed


def palette_of(classes: ClassSet) -> np.ndarray:
    """V×3 uint8: the color of every value a label image may hold, V = 256, or 65536 for sets of more classes."""
    table = np.zeros((256 if len(classes) <= 256 else 65536, 3), np.uint8)
    table[: len(classes)] = classes.colors
    return table
