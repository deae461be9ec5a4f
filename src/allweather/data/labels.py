"""Label images: from a dataset's values to class indices, and from one class set to another; for scoring only."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from allweather.classes import CAMVID11, CITYSCAPES, ClassSet
from allweather.data.class_files import find_classes, is_file
from allweather.data.folder import natural_key
from allweather.data.images import class_indices
from allweather.errors import InputError, SettingsError, check_known
from allweather.pictures.walk import files_below


@dataclass(frozen=True)
class ClassMapping:
    """How predictions in one class set are compared with labels in another.

    Attributes:
        name: as the command line takes it.
        predicted, truth: the class sets of predictions and of label files.
        table: for each predicted class the true class it counts as.
    """

    name: str
    predicted: ClassSet
    truth: ClassSet
    table: tuple[int, ...]

    def counted_as(self, predicted: np.ndarray) -> np.ndarray:
        """Classes of the predicted set, integers H×W, as those of the true set that they count as, int16 H×W.

        −1, no class, stays it.
        """
        return np.array([*self.table, -1], np.int16)[predicted]

    def labels(self, labels: np.ndarray, path: Path) -> np.ndarray:
        """True labels of a file's values, integers H×W: int16 H×W, −1 where they are to be ignored.

        Raises:
            ImageError: for a value that is neither a class nor the set's ignore value.
        """
        return class_indices(labels, self.truth, path)


MAPPINGS = {
    mapping.name: mapping
    for mapping in (
        ClassMapping("cityscapes", CITYSCAPES, CITYSCAPES, tuple(range(19))),
        ClassMapping("camvid11", CAMVID11, CAMVID11, tuple(range(11))),
        ClassMapping(
            "cityscapes-camvid11",
            CITYSCAPES,
            CAMVID11,
            (3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10),
        ),
    )
}


def find_mapping(name: str) -> ClassMapping:
    """The mapping of that name; a file of classes of one's own maps each to itself.

    Raises:
        AllWeatherError: when there is none, or a file that is none of classes.
    """
    if is_file(name):
        classes = find_classes(name)
        return mapping_between(classes, classes)
    check_known("mapping", name, MAPPINGS)
    return MAPPINGS[name]


def mapping_between(predicted: ClassSet, truth: ClassSet) -> ClassMapping:
    """The mapping from a network's classes to a dataset's; sets of the same names in one order are one.

    Raises:
        AllWeatherError: when no table relates the two.
    """
    if predicted.names == truth.names:
        return ClassMapping(truth.name, predicted, truth, tuple(range(len(truth))))
    for mapping in MAPPINGS.values():
        if (mapping.predicted, mapping.truth) == (predicted, truth):
            return mapping
    pairs = enumerate(zip(predicted.names, truth.names, strict=False))
    index, apart = next(((i, pair) for i, pair in pairs if pair[0] != pair[1]), (0, ()))
    where = f" (class {index} is '{apart[0]}' here, '{apart[1]}' there)" if apart else ""
    raise SettingsError(
        f"no table says how {predicted.name}'s {len(predicted)} classes count as {truth.name}'s {len(truth)}{where}. "
        f"Known: {', '.join(MAPPINGS)}. If the network has {truth.name}'s classes, say so: --classes, in plans classes "
        f"of [[models]]. If labels hold {predicted.name}'s indices, give the stream a file of its names."
    )


def label_files(folder: Path) -> dict[str, Path]:
    """The label images (.png) of a folder by name, searched to the bottom as `files_below` does, naturally sorted.

    A broken link is among them: reading it says so.

    Raises:
        AllWeatherError: when there is no such folder, or it has none, or holds a folder that cannot be opened, or two
            that differ in the writing of their suffix alone.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}. Expected one with label images (.png).")
    found = list(files_below(folder, (".png",)))
    shut = next((entry for entry in found if entry.fault and entry.path.suffix.lower() != ".png"), None)
    if shut:
        raise InputError(f"{shut.path}: {shut.fault}.")
    files: dict[str, Path] = {}
    for entry in found:
        name = entry.path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise InputError(f"{files[name]} and {entry.path.name} would be labels of one picture. Keep one of them.")
        files[name] = entry.path
    if not files:
        raise InputError(f"no label image (.png) in {folder}. Give the dataset's folder of labels, or `adapt`'s.")
    return dict(sorted(files.items(), key=lambda item: natural_key(item[0])))
