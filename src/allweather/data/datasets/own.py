"""Datasets of the user's own: a Dataset, or what makes one, in a file, a module or an installed package."""

import re
from collections.abc import Mapping
from typing import Any

from allweather.data.datasets.dataset import Dataset
from allweather.errors import InputError, unknown
from allweather.plugins import (
    Kind,
    find_place,
    guarded,
    installed,
    load_installed,
    load_own,
    usable,
    without_name,
)

OWN_DATASETS = Kind("dataset", "allweather.datasets", InputError, parts=True)
_OWN = re.compile(r"(?P<place>.+\.py:\w+|[\w.]+:\w+)(?::(?P<split>.+))?")


def find_dataset_in(
    name: str, known: Mapping[str, Dataset], word: str = "dataset", others: tuple[str, ...] = ()
) -> tuple[Dataset, str | None]:
    """The dataset and the split that `NAME` or `NAME:SPLIT` says, the split None where it says none.

    Args:
        name: NAME is one of `known`, `mydata.py:MyDataset`, `package.module:MyDataset`, or what an installed package
            calls it. Code of the user's own runs, which is said on stderr.
        word, others: what the message for an unknown name calls it, and which names would have done beside datasets.

    Raises:
        SettingsError: for an unknown name.
        InputError: for code that fails, or that gives no Dataset.
    """
    first, _, rest = name.partition(":")
    if first in known:
        return known[first], rest or None
    packages = installed(OWN_DATASETS)
    if first in packages:
        return checked(first, load_installed(packages[first], OWN_DATASETS)), rest or None
    match = _OWN.fullmatch(name)
    place = find_place(match["place"]) if match else None
    if match and place:
        return checked(place.label, load_own(place, OWN_DATASETS)), match["split"]
    raise without_name(name, OWN_DATASETS) or unknown(word, first, [*others, *known, *packages])


def list_own(known: Mapping[str, Dataset]) -> tuple[dict[str, Dataset], dict[str, str]]:
    """The datasets of installed packages by name, and why others cannot be used."""
    return usable(OWN_DATASETS, known, lambda entry: checked(entry.name, load_installed(entry, OWN_DATASETS)))


def checked(label: str, made: Any) -> Dataset:
    """A Dataset, or what a function or class without arguments gives if that is one.

    Raises:
        InputError: otherwise.
    """
    dataset = made if isinstance(made, Dataset) or not callable(made) else guarded(label, OWN_DATASETS, made)
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"{label}: expected an allweather.data.datasets.Dataset, or what makes one, got {dataset!r:.80}."
        )
    return dataset
