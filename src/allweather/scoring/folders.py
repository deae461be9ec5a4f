"""Scoring a folder of predicted labels against a folder of true ones: one confusion matrix over all images."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from allweather.data.images import read_labels
from allweather.data.labels import ClassMapping, label_files
from allweather.data.pairing import Scene, pair, scenes
from allweather.data.truth import LabelsAs, TruthReader
from allweather.errors import InputError
from allweather.rgb import ImageError
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
        read_as: how many label files held trainIds, labelIds or colors.
    """

    matrix: ConfusionMatrix
    images: tuple[str, ...]
    per_image: tuple[float, ...]
    failed: dict[str, str]
    without_prediction: tuple[str, ...]
    labels: int
    read_as: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every prediction and every label was scored."""
        return not self.failed and not self.without_prediction


def score_folders(predictions: Path, truth: Path, mapping: ClassMapping, labels_as: LabelsAs | None = None) -> Score:
    """Compares every label image in `predictions` with its true one in `truth`: `pair` says which that is.

    Args:
        labels_as: how label files hold classes, as `TruthReader` takes it.

    Raises:
        AllWeatherError: for a folder that does not exist or has no label image, names that never meet, or label files
            of which it cannot be known how they hold classes.
    """
    for folder in (predictions, truth):
        if not folder.is_dir():
            raise InputError(f"no such folder: {folder}. Expected a folder of label images (.png).")
    predicted, labels = label_files(predictions), label_files(truth)
    labelled, reader = scenes(labels, truth), TruthReader(mapping, labels_as)
    found, failed = pair(predicted, labelled)
    if not found:
        raise InputError(
            f"no prediction has a label of its name: {predictions} holds {next(iter(predicted))}.png …, "
            f"{truth} holds {next(iter(labels))}.png …."
        )
    failed |= {name: f"no label {name}.png in {truth}" for name in predicted if name not in (found | failed)}
    matrix, read_as = ConfusionMatrix(len(mapping.truth)), Counter[str]()
    scored: dict[str, float] = {}
    for name, scene in found.items():
        try:
            values, true, encoding = _read(predicted[name], scene, reader)
        except ImageError as error:
            failed[name] = str(error)
            continue
        image = ConfusionMatrix(len(mapping.truth)).update(values, true)
        matrix, scored[name] = matrix + image, image.mean_iou
        read_as[encoding] += 1
    answered = {scene.name for scene in found.values()}
    missing = tuple(scene.name for scene in labelled if scene.name not in answered)
    return Score(matrix, tuple(scored), tuple(scored.values()), failed, missing, len(labelled), dict(read_as))


def _read(prediction: Path, scene: Scene, reader: TruthReader) -> tuple[np.ndarray, np.ndarray, str]:
    """Predicted and true class of each pixel, H×W each, −1 for none, and how the label file held them.

    Raises:
        ImageError: for an unreadable file, an unexpected value, or sizes that differ.
        AllWeatherError: where it cannot be known how the label file holds classes.
    """
    path, said = scene.choose(reader.labels_as)
    true, encoding = reader.read(path, said)
    predicted = reader.mapping.predictions(read_labels(prediction), prediction)
    if predicted.shape != true.shape:
        raise ImageError(
            f"{prediction} has {predicted.shape[1]}×{predicted.shape[0]} pixels, its label {path} has "
            f"{true.shape[1]}×{true.shape[0]}. Predictions are scored at the label's size."
        )
    return predicted, true, encoding
