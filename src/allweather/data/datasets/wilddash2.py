"""WildDash 2 (Zendel et al., CVPR 2022): hazards from all over the world, panoptic labels in colors."""

import json
from pathlib import Path

import numpy as np

from allweather.classes import CITYSCAPES
from allweather.data.datasets.dataset import Dataset, Decoder, Split
from allweather.errors import ImageError, InputError
from allweather.rgb import read_rgb

COUNTED_AS = {  # categories beyond the Cityscapes names, by the class they are scored as
    "traffic sign front": "traffic sign", "traffic sign frame": "pole", "utility pole": "pole", "on rails": "train",
    "pickup": "truck", "van": "car", "auto rickshaw": "motorcycle", "motorcyclist": "rider", "bicyclist": "rider",
    "other rider": "rider", "road marking": "road", "manhole": "road", "pothole": "road", "tram track": "road",
    "bikelane": "road", "pedestrian area": "road", "catch basin": "road", "crosswalk plain": "road",
    "crosswalk zebra": "road", "service lane": "road", "curb": "sidewalk", "bikelane sidewalk": "sidewalk",
    "manhole sidewalk": "sidewalk", "curb cut": "sidewalk", "curb terrain": "terrain", "other barrier": "wall",
}  # fmt: skip


def decoder(root: Path) -> Decoder:
    """Reads `panoptic/*.png` by the segments that `panoptic.json` lists; segments it does not list do not count.

    Raises:
        AllWeatherError: when `panoptic.json` is missing or damaged.
    """
    path = root / "panoptic.json"
    try:
        listing = json.loads(path.read_text(encoding="utf-8-sig"))
        classes = {entry["id"]: train_id(entry["name"]) for entry in listing["categories"]}
        segments = {
            Path(entry["file_name"]).stem: {part["id"]: classes[part["category_id"]] for part in entry["segments_info"]}
            for entry in listing["annotations"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {path}: expected WildDash's panoptic.json ({error!r}).") from error

    def decode(label: Path) -> np.ndarray:
        if label.stem not in segments:
            raise ImageError(f"{label}: panoptic.json lists no segments for it.")
        red, green, blue = (read_rgb(label)[0] * 255).round().long().numpy()  # 3×H×W
        ids, inverse = np.unique(red + 256 * green + 65536 * blue, return_inverse=True)
        table = np.array([segments[label.stem].get(int(number), -1) for number in ids], np.int64)
        return table[inverse].reshape(red.shape)

    return decode


def train_id(category: str) -> int:
    """The trainId that a category is scored as, −1 for none; names may be written with hyphens."""
    name = category.lower().replace("-", " ").replace("_", " ").strip()
    name = COUNTED_AS.get(name, name)
    return CITYSCAPES.names.index(name) if name in CITYSCAPES.names else -1


DATASET = Dataset(
    name="wilddash2",
    title="WildDash 2",
    publisher="https://wilddash.cc",
    terms="registration",
    splits={"public": Split(("images/*.jpg",), ((r"^images/(.*)\.jpg$", r"panoptic/\1.png"),), count=4256)},
    default="public",
    decoder=decoder,
    notes="80 categories are scored as 19 classes by the table in this file.",
    reads=("panoptic.json",),
)
