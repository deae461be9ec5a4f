"""The datasets of the field, one publisher's layout a file; a new one is a file beside these and a line here."""

from typing import Any

from allweather.data.datasets import (
    acdc,
    bdd100k,
    c_driving,
    camvid,
    cityscapes,
    dark_zurich,
    foggy_driving,
    foggy_zurich,
    mapillary,
    muses,
    nightcity,
    nighttime_driving,
    robotcar,
    wilddash2,
)
from allweather.data.datasets.check import check
from allweather.data.datasets.dataset import Dataset, Sample, Split
from allweather.errors import unknown

DATASETS = {
    dataset.name: dataset
    for dataset in (
        acdc.DATASET,
        bdd100k.DATASET,
        c_driving.DATASET,
        camvid.DATASET,
        cityscapes.DATASET,
        cityscapes.FOGGY,
        cityscapes.RAIN,
        dark_zurich.DATASET,
        foggy_driving.DATASET,
        foggy_driving.DENSE,
        foggy_zurich.DATASET,
        mapillary.DATASET,
        muses.DATASET,
        nightcity.DATASET,
        nighttime_driving.DATASET,
        robotcar.DATASET,
        wilddash2.DATASET,
    )
}


def find_dataset(name: str) -> Dataset:
    """The dataset of that name.

    Raises:
        AllWeatherError: when there is none.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    return DATASETS[name]


def list_datasets() -> list[dict[str, Any]]:
    """One row per dataset, ready for JSON: names, splits with their published numbers, publisher and terms."""
    return [
        {
            "name": dataset.name,
            "title": dataset.title,
            "splits": {name: split.count for name, split in dataset.splits.items()},
            "default_split": dataset.default,
            "classes": dataset.classes.name,
            "publisher": dataset.publisher,
            "terms": dataset.terms,
            "notes": dataset.notes,
        }
        for dataset in DATASETS.values()
    ]


__all__ = ["DATASETS", "Dataset", "Sample", "Split", "check", "find_dataset", "list_datasets"]
