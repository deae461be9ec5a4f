"""Mapillary Vistas (Neuhold et al., ICCV 2017), versions 1.2 and 2.0, scored as the 19 Cityscapes classes."""

import json
from pathlib import Path

import numpy as np

from allweather.classes import CITYSCAPES
from allweather.data.datasets.dataset import Dataset, Decoder, Split
from allweather.data.images import lookup, read_labels
from allweather.errors import InputError

PREFIXES = {  # the longest prefix of a label's name decides; None does not count
    "construction--flat--road": "road", "construction--flat--bike-lane": "road",
    "construction--flat--crosswalk-plain": "road", "construction--flat--service-lane": "road",
    "construction--flat--parking": None, "construction--flat--sidewalk": "sidewalk",
    "construction--barrier--curb": "sidewalk", "construction--flat--curb-cut": "sidewalk",
    "construction--structure--building": "building", "construction--barrier--wall": "wall",
    "construction--barrier--fence": "fence", "object--support--pole": "pole", "object--support--utility-pole": "pole",
    "object--support--pole-group": None, "object--traffic-light": "traffic light",
    "object--traffic-sign": "traffic sign", "object--traffic-sign--back": None,
    "object--traffic-sign--direction-back": None, "object--traffic-sign--temporary-back": None,
    "object--traffic-sign--ambiguous": None, "nature--vegetation": "vegetation", "nature--terrain": "terrain",
    "nature--sky": "sky", "human--person": "person", "human--rider": "rider",
    "object--vehicle--car": "car", "object--vehicle--truck": "truck", "object--vehicle--bus": "bus",
    "object--vehicle--on-rails": "train", "object--vehicle--motorcycle": "motorcycle",
    "object--vehicle--bicycle": "bicycle", "marking": "road", "marking-only": "road", "object--manhole": "road",
}  # fmt: skip
PARTS = {"train": ("training", 18000), "val": ("validation", 2000), "test": ("testing", 5000)}


def train_id(name: str) -> int:
    """The trainId that a label is scored as, −1 for none."""
    matching = [prefix for prefix in PREFIXES if name == prefix or name.startswith(f"{prefix}--")]
    counted = PREFIXES[max(matching, key=len)] if matching else None
    return -1 if counted is None else CITYSCAPES.names.index(counted)


def decoder(root: Path) -> Decoder:
    """Reads label files by the list of labels in `config_v1.2.json` or `config_v2.0.json` at the root."""
    tables: dict[str, dict[int, int]] = {}

    def decode(path: Path) -> np.ndarray:
        version = "v2.0" if "v2.0" in path.relative_to(root).parts else "v1.2"
        if version not in tables:
            tables[version] = _table(root, version)
        return lookup(read_labels(path), tables[version], path, f"labels of Vistas {version}")

    return decode


def _table_file(root: Path, version: str) -> str:
    names = (f"config_{version}.json", "config.json")
    return next((name for name in names if (root / name).is_file()), names[0])


def _table(root: Path, version: str) -> dict[int, int]:
    path = root / _table_file(root, version)
    try:
        labels = json.loads(path.read_text(encoding="utf-8-sig"))["labels"]
        return {index: train_id(label["name"]) for index, label in enumerate(labels)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {path}: expected Mapillary Vistas' list of labels ({error!r}).") from error


def _split(folder: str, count: int, version: str) -> Split:
    labels = tuple(
        (r"^(\w+)/images/(.*)\.jpg$", rf"\1/{place}\2.png")
        for place in ((f"{version}/labels/", "labels/") if version == "v1.2" else (f"{version}/labels/",))
    )
    return Split((f"{folder}/images/*.jpg",), labels if folder != "testing" else (), count=count)


DATASET = Dataset(
    name="mapillary-vistas",
    title="Mapillary Vistas",
    publisher="https://www.mapillary.com/dataset/vistas",
    terms="registration, non-commercial",
    splits={
        **{name: _split(folder, count, "v1.2") for name, (folder, count) in PARTS.items()},
        **{f"{name}/v2.0": _split(folder, count, "v2.0") for name, (folder, count) in PARTS.items()},
    },
    decoder=decoder,
    notes="66 or 124 labels are scored as 19 classes by the table of prefixes in this file.",
    reads=lambda root, split: [_table_file(root, "v2.0" if "/" in split else "v1.2")],
)
