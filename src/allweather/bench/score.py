"""Scoring a folder of predicted labels against a folder of true ones: one confusion matrix over all images."""

from dataclasses import dataclass
from pathlib import Path

from allweather.bench.metrics import ConfusionMatrix
from allweather.data.labels import Mapping, label_files, read_pair
from allweather.errors import InputError
from allweather.rgb import ImageError


@dataclass(frozen=True)
class Score:
    """The result of `score_folders`.

    Attributes:
        matrix: over all images that could be scored.
        images: their names in order, and `per_image` the mIoU of each in [0, 1].
        failed: why an image could not be scored, by name.
        without_prediction: true labels that no prediction answers.
    """

    matrix: ConfusionMatrix
    images: tuple[str, ...]
    per_image: tuple[float, ...]
    failed: dict[str, str]
    without_prediction: tuple[str, ...]


def score_folders(predictions: Path, truth: Path, mapping: Mapping) -> Score:
    """Compares every label image in `predictions` with the one of the same name in `truth`.

    Raises:
        AllWeatherError: for a folder that does not exist or has no label image, or names that never meet.
    """
    for folder in (predictions, truth):
        if not folder.is_dir():
            raise InputError(f"no such folder: {folder}. Expected a folder of label images (.png).")
    predicted, labels = label_files(predictions), label_files(truth)
    common = [name for name in predicted if name in labels]
    if not common:
        raise InputError(
            f"no prediction has a label of its name: {predictions} holds {next(iter(predicted))}.png …, "
            f"{truth} holds {next(iter(labels))}.png …."
        )
    matrix = ConfusionMatrix(len(mapping.truth))
    scored: dict[str, float] = {}
    failed = {name: f"no label {name}.png in {truth}" for name in predicted if name not in labels}
    for name in common:
        try:
            pair = read_pair(predicted[name], labels[name], mapping)
        except ImageError as error:
            failed[name] = str(error)
            continue
        image = ConfusionMatrix(len(mapping.truth)).update(*pair)
        matrix, scored[name] = matrix + image, image.mean_iou
    missing = tuple(name for name in labels if name not in predicted)
    return Score(matrix, tuple(scored), tuple(scored.values()), failed, missing)
