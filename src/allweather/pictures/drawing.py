"""Labels as colors, and colors over a picture, a stripe of rows at a time."""

import numpy as np

from allweather.classes import ClassSet

STRIPE = 1 << 18  # pixels of one stripe


def colorize(labels: np.ndarray, classes: ClassSet) -> np.ndarray:
    """Class indices H×W as colors H×W×3 uint8; values that are no class are black."""
    return palette_of(classes)[labels]


def overlay(image: np.ndarray, labels: np.ndarray, classes: ClassSet, opacity: float = 0.5) -> np.ndarray:
    """The class colors over the image, both H×W×3 uint8; `opacity` in [0, 1] is that of the colors."""
    colors = palette_of(classes).astype(np.float32) * np.float32(opacity)
    mixed = np.empty_like(image)
    height = max(1, STRIPE // max(1, image.shape[1]))
    for top in range(0, len(image), height):
        rows = slice(top, top + height)
        mixed[rows] = (image[rows] * np.float32(1 - opacity) + colors[labels[rows]]).round()
    return mixed


def palette_of(classes: ClassSet) -> np.ndarray:
    """V×3 uint8: the color of every value a label image may hold, V = 256, or 65536 for sets of more classes."""
    table = np.zeros((256 if len(classes) <= 256 else 65536, 3), np.uint8)
    table[: len(classes)] = classes.colors
    return table
