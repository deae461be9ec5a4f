"""Scoring a folder of predicted labels against a folder of true ones: one confusion matrix over all images."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from allweather.data.labels import ClassMapping, label_files, mapping_between
from allweather.data.pairing import Labelled, labelled_pictures, pair
from allweather.data.truth import Encoding, LabelsAs, TruthReader
from allweather.errors import ImageError, InputError
from allweather.scoring.confusion import ConfusionMatrix


@dataclass(frozen=True)
class Score:
    """The result of `score_folders`.

    Attributes:
        matrix: over all images that could be scored.
        images: their names in order, and `per_image` the official mIoU of each in [0, 1].
        failed: why a prediction could not be scored, by name.
        without_prediction: true labels that no prediction answers.
        labels: pictures in the folder of true labels.
        read_as: how many label files held trainIds, labelIds or colors, and `predictions_as` how many predictions.
    """

    matrix: ConfusionMatrix
    images: tuple[str, ...]
    per_image: tuple[float, ...]
    failed: dict[str, str]
    without_prediction: tuple[str, ...]
    labels: int
    read_as: dict[str, int] = field(default_factory=dict)
    predictions_as: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every prediction and every label was scored."""
        return not self.failed and not self.without_prediction


def score_folders(
    predictions: Path | str, truth: Path | str, mapping: ClassMapping, labels_as: LabelsAs | None = None
) -> Score:
    """Compares every label image in `predictions` with its true one in `truth`: `pair` says which that is.

    Predictions are read as label files are: as each one's name says. Of several that hold one prediction in different
    ways, the one counts that would of labels.

    Args:
        labels_as: how label files hold classes, as `TruthReader` takes it.

    Raises:
        AllWeatherError: for a folder that does not exist or has no label image, names that never meet, files of which
            it cannot be known how they hold classes, or of which no pixel counts.
    """
    predictions, truth = Path(predictions), Path(truth)
    for folder in (predictions, truth):
        if not folder.is_dir():
            raise InputError(f"no such folder: {folder}. Expected a folder of label images (.png).")
    predicted, labels = _chosen(label_files(predictions), predictions), label_files(truth)
    labelled, reader = labelled_pictures(labels, truth), TruthReader(mapping, labels_as)
    own = TruthReader(mapping_between(mapping.predicted, mapping.predicted), predicted=True)
    found, failed = pair(predicted, labelled)
    if not found:
        raise InputError(
            f"no prediction has a label of its name: {predictions} holds {next(iter(predicted))}.png …, "
            f"{truth} holds {next(iter(labels))}.png …."
        )
    failed |= {name: f"no label {name}.png in {truth}" for name in predicted if name not in (found | failed)}
    matrix, read_as, predictions_as = ConfusionMatrix(len(mapping.truth)), Counter[str](), Counter[str]()
    scored: dict[str, float] = {}
    for name, scene in found.items():
        try:
            values, true, ways = _read(predicted[name], own, scene, reader)
        except ImageError as error:
            failed[name] = str(error)
            continue
        image = ConfusionMatrix(len(mapping.truth)).update(values, true)
        matrix, scored[name] = matrix + image, image.mean_iou
        predictions_as[ways[0]] += 1
        read_as[ways[1]] += 1
    if scored and not matrix.counts.any():
        raise InputError(
            f"no pixel could be scored: every pixel of {len(scored)} labels in {truth} is to be ignored. Is it the "
            "right folder?"
        )
    answered = {scene.name for scene in found.values()}
    missing = tuple(scene.name for scene in labelled if scene.name not in answered)
    return Score(
        matrix, tuple(scored), tuple(scored.values()), failed, missing, len(labelled), dict(read_as),
        dict(predictions_as),
    )  # fmt: skip


def _chosen(files: Mapping[str, Path], folder: Path) -> dict[str, tuple[Path, Encoding | None]]:
    """One file for each prediction by its name, and what that says of how it holds classes."""
    names = {path: name for name, path in files.items()}
    chosen = (scene.choose(None) for scene in labelled_pictures(files, folder, predicted=True))
    return {names[path]: (path, said) for path, said in chosen}


def _read(
    prediction: tuple[Path, Encoding | None], own: TruthReader, scene: Labelled, reader: TruthReader
) -> tuple[np.ndarray, np.ndarray, tuple[Encoding, Encoding]]:
    """Predicted and true class of each pixel, H×W each, −1 for none, and how either file held them.

    Raises:
        ImageError: for an unreadable file, an unexpected value, or sizes that differ.
        AllWeatherError: where it cannot be known how a file holds classes.
    """
    path, said = scene.choose(reader.labels_as)
    true, encoding = reader.read(path, said)
    values, way = own.read(*prediction)
    if values.shape != true.shape:
        raise ImageError(
            f"{prediction[0]} has {values.shape[1]}×{values.shape[0]} pixels, its label {path} has "
            f"{true.shape[1]}×{true.shape[0]}. Predictions are scored at the label's size."
        )
    return reader.mapping.counted_as(values), true, (way, encoding)
