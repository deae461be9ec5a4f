"""Foggy Zurich (Sakaridis et al., ECCV 2018, IJCV 2020): forty labelled scenes of dense fog, and unlabelled ones."""

from pathlib import Path

import numpy as np

from allweather.data.datasets.dataset import Dataset, Split
from allweather.data.datasets.encodings import label_ids, train_ids

LABELS = ((r"^RGB/", "gt_labelTrainIds/"), (r"^RGB/", "gt_labelIds/"))


def decode(path: Path) -> np.ndarray:
    """trainIds or labelIds, as the folder says: files carry the names of their images."""
    return label_ids(path) if "gt_labelIds" in path.parts else train_ids(path)


def _listed(part: str, labelled: bool, count: int | None = None) -> Split:
    return Split((), LABELS if labelled else (), listed=f"lists_file_names/RGB_{part}_filenames.txt", count=count)


DATASET = Dataset(
    name="foggy-zurich",
    title="Foggy Zurich",
    publisher="https://people.ee.ethz.ch/~csakarid/Model_adaptation_SFSU_dense",
    terms="non-commercial",
    splits={
        "testv2": _listed("testv2", True, 40),
        "testv1": _listed("testv1", True, 16),
        "light": _listed("light", False),
        "medium": _listed("medium", False),
        "all": Split(("RGB/*/*.png",), LABELS, count=3808),
    },
    default="testv2",
    places=("Foggy_Zurich",),
    decoder=lambda root: decode,
    notes="Splits are the publisher's lists, in their order.",
)
