"""What of a dataset is on disk, what is missing, and who offers it."""

from pathlib import Path
from typing import Any

from allweather.data.datasets.dataset import Dataset, Sample
from allweather.errors import InputError


def check(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Counts every split below `root` without opening an image; ready for JSON.

    Returns:
        `splits` (images found, by split), `published` (where that number is certain), `missing` (splits without a
        single image, with what was looked for), `absent` (images that a list names and that are not there, with one
        name), `unlisted` (splits whose list is not there, by which every image of their patterns counts: the list and
        the images), `differing` (splits whose number is not the published one),
        `unlabelled` (images of labelled splits whose label file is absent, with one name), `publisher`, `terms`,
        `notes`.

    Raises:
        AllWeatherError: when `root` is no folder, or holds nothing of the dataset.
    """
    if not root.is_dir():
        raise InputError(f"no such folder: {root}. Expected the root of {dataset.title}.")
    found = {name: dataset.find(root, split) for name, split in dataset.splits.items()}
    if not any(found.values()):
        dataset.samples(root)  # its message says what was looked for
    return {
        "name": dataset.name,
        "title": dataset.title,
        "splits": {name: len(samples) for name, samples in found.items()},
        "published": {name: split.count for name, split in dataset.splits.items() if split.count is not None},
        "missing": {name: split.sought for name, split in dataset.splits.items() if not found[name]},
        "absent": _absent(dataset, root),
        "unlisted": _unlisted(dataset, root, found),
        "differing": _differing(dataset, found),
        "unlabelled": _unlabelled(dataset, found),
        "publisher": dataset.publisher,
        "terms": dataset.terms,
        "notes": dataset.notes,
    }


def _absent(dataset: Dataset, root: Path) -> dict[str, dict[str, Any]]:
    absent = {name: dataset.absent(root, split) for name, split in dataset.splits.items()}
    return {name: {"images": len(names), "first": names[0]} for name, names in absent.items() if names}


def _unlisted(dataset: Dataset, root: Path, found: dict[str, list[Sample]]) -> dict[str, dict[str, Any]]:
    """A release in which the patterns give as many as are published needs no list."""
    return {
        name: {"list": split.listed, "images": len(found[name])}
        for name, split in dataset.splits.items()
        if split.listed and len(found[name]) not in (0, split.count) and dataset.list_file(root, split) is None
    }


def _differing(dataset: Dataset, found: dict[str, list[Sample]]) -> dict[str, dict[str, int]]:
    return {
        name: {"found": len(found[name]), "published": split.count}
        for name, split in dataset.splits.items()
        if split.count is not None and found[name] and len(found[name]) != split.count
    }


def _unlabelled(dataset: Dataset, found: dict[str, list[Sample]]) -> dict[str, dict[str, Any]]:
    absent = {
        name: [sample.name for sample in found[name] if sample.label is None]
        for name, split in dataset.splits.items()
        if split.labels
    }
    return {name: {"images": len(names), "first": names[0]} for name, names in absent.items() if names}
