"""How publishers write classes into label files, decoded to trainIds with −1 for pixels that do not count."""

from pathlib import Path

import numpy as np

from allweather.classes import CITYSCAPES
from allweather.data.images import class_indices, indices_of, lookup, read_labels
from allweather.rgb import open_image

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of trainIds 0..18
MINUS_ONE = (255, 65535)  # what −1, the licence plate, becomes in 8 and in 16 bits


def train_ids(path: Path) -> np.ndarray:
    """A file of trainIds 0..18 and 255.

    Raises:
        ImageError: for any other value.
    """
    return class_indices(read_labels(path), CITYSCAPES, path)


def label_ids(path: Path) -> np.ndarray:
    """A file of Cityscapes labelIds −1..33, or 255.

    Raises:
        ImageError: for any other value.
    """
    return label_ids_of(read_labels(path), path)


def label_ids_of(values: np.ndarray, path: Path) -> np.ndarray:
    """As `label_ids`, of values that are read already; `path` is for the message.

    Raises:
        ImageError: for any value but −1..33 and 255.
    """
    table = dict.fromkeys((*range(-1, 34), *MINUS_ONE), -1)
    table |= {value: index for index, value in enumerate(LABEL_IDS)}
    return lookup(values, table, path, "labelIds, −1..33 and 255")


def by_name(path: Path) -> np.ndarray:
    """trainIds or labelIds, as the file's name says."""
    return label_ids(path) if "labelids" in path.stem.lower() else train_ids(path)


def invalid_mask(path: Path) -> np.ndarray:
    """H×W booleans, true where the class cannot be seen (value 1; 255 in the grey form; one bit will do).

    Raises:
        ImageError: for any value but 0, 1 and 255.
    """
    image = open_image(path)
    values = np.asarray(image, np.uint8) if image.mode == "1" else indices_of(image, path)
    return lookup(values, {0: 0, 1: 1, 255: 1}, path, "0, 1 and 255, of an invalid mask") == 1


def to_label_ids(values: np.ndarray) -> np.ndarray:
    """uint8 labelIds H×W of trainIds 0..18, integers H×W up to 255; all others become 0, `unlabeled`."""
    table = np.zeros(256, np.uint8)
    table[: len(LABEL_IDS)] = LABEL_IDS
    return table[values]
