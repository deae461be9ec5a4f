"""RobotCar Seasons with segmentation labels (Larsson et al., CVPR 2019)."""

from allweather.data.datasets.dataset import Dataset, Split
from allweather.data.datasets.encodings import label_ids

LABELS = ((r"/imgs/", "/annos/"),)
PARTS = {"train": "training", "val": "validation", "test": "testing"}

DATASET = Dataset(
    name="robotcar",
    title="RobotCar segmentation",
    publisher="https://www.visuallocalization.net",
    terms="non-commercial",
    splits={name: Split((f"segmented_images/{folder}/imgs/*.png",), LABELS) for name, folder in PARTS.items()},
    default="test",
    decoder=lambda root: label_ids,
    notes="Labels carry the names of their images.",
)
