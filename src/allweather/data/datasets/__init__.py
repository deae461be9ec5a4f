"""The datasets of the field, one publisher's layout a file; a new one is a file beside these and a line here."""

from collections.abc import Mapping
from pathlib import Path
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
from allweather.data.datasets.own import find_dataset_in
from allweather.data.stream import Stream

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
    """The dataset of that name; one of your own is `mydata.py:MyDataset` (see `find_split`).

    Raises:
        AllWeatherError: when there is none, or code of your own fails.
    """
    return find_split(name)[0]


def find_split(name: str) -> tuple[Dataset, str | None]:
    """The dataset and split that `NAME` or `NAME:SPLIT` says, the split None where it says none.

    NAME is one of `DATASETS`, a Dataset of your own as `mydata.py:MyDataset` or `package.module:MyDataset`, which runs
    that code and says so on stderr, or the name that an installed package gives it.

    Raises:
        AllWeatherError: when there is no such dataset, or code of your own fails.
    """
    return find_dataset_in(name, DATASETS)


def open_split(name: str, root: Path | str, size: tuple[int, int] | None = None) -> Stream:
    """The frames of `NAME` or `NAME:SPLIT` (see `find_split`), without labels.

    Args:
        name: the dataset, and the split where it is not the default one.
        root: the dataset's folder.
        size: (width, height) in pixels that every frame is resampled to; None keeps each frame's size.

    Raises:
        AllWeatherError: as `find_split`, or when nothing is found.
    """
    dataset, split = find_dataset_in(name, DATASETS, "kind of stream", ("folder", "video"))
    return dataset.stream(Path(root), split, size)


def list_datasets(datasets: Mapping[str, Dataset] = DATASETS) -> list[dict[str, Any]]:
    """One row for each of `datasets`, ready for JSON: names, splits with their published sizes, publisher and terms."""
    return [
        {
            "name": name,
            "title": dataset.title,
            "splits": {split: found.count for split, found in dataset.splits.items()},
            "default_split": dataset.default,
            "classes": dataset.classes.name,
            "publisher": dataset.publisher,
            "terms": dataset.terms,
            "notes": dataset.notes,
        }
        for name, dataset in datasets.items()
    ]


__all__ = [
    "DATASETS",
    "Dataset",
    "Sample",
    "Split",
    "check",
    "find_dataset",
    "find_split",
    "list_datasets",
    "open_split",
]
