"""Scores of label images: one confusion matrix accumulated over a whole stream, then every figure from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from allweather.errors import InputError

CHUNK = 1 << 20  # pixels counted at a time


@dataclass(eq=False)
class ConfusionMatrix:
    """Counts of (true class, predicted class) over any number of images.

    Accumulate, then divide: mean IoU is the mean over classes of the IoU over all pixels of all images, not the
    mean of images' scores. Pixels whose true class is −1 do not count; a predicted −1 is wrong for every class.

    Attributes:
        classes: C.
        counts: C×(C+1) int64, rows true, columns predicted, the last column predictions that are no class.

    Raises:
        InputError: for no class, or counts that are not C×(C+1) whole numbers from 0 on.
    """

    classes: int
    counts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise InputError(f"expected at least one class, got {self.classes}.")
        shape = (self.classes, self.classes + 1)
        if not self.counts.size:
            self.counts = np.zeros(shape, np.int64)
        if self.counts.shape != shape or self.counts.dtype.kind not in "iu" or self.counts.min() < 0:
            got = f"{self.counts.dtype} of shape {self.counts.shape}, from {self.counts.min()} on"
            raise InputError(f"counts: expected whole numbers from 0 on of shape {shape}, got {got}.")

    def update(self, predicted: np.ndarray, truth: np.ndarray) -> "ConfusionMatrix":
        """Counts one image: integer arrays of one shape, −1 for no class. Returns itself.

        Raises:
            AllWeatherError: for shapes that differ, what is no array of whole numbers, or values outside −1..C−1.
        """
        for name, values in (("predicted", predicted), ("true", truth)):
            check_labels(name, values, self.classes)
        if predicted.shape != truth.shape:
            raise InputError(f"expected labels of one shape, got {predicted.shape} and {truth.shape}.")
        for part in chunks(predicted, truth):
            self._count(*part)
        return self

    def _count(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        counted = truth >= 0
        columns = np.where(predicted < 0, self.classes, predicted)[counted].astype(np.int64)
        cells = truth[counted].astype(np.int64) * (self.classes + 1) + columns
        size = self.classes * (self.classes + 1)
        self.counts += np.bincount(cells, minlength=size).reshape(self.counts.shape)

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """The matrix of both sets of images together.

        Raises:
            InputError: for matrices of different numbers of classes.
        """
        if other.classes != self.classes:
            raise InputError(f"expected matrices of equally many classes, got {self.classes} and {other.classes}.")
        return ConfusionMatrix(self.classes, self.counts + other.counts)

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class in [0, 1]; NaN for a class neither true nor predicted anywhere."""
        return ratio(self.intersection, self.union)

    @property
    def intersection(self) -> np.ndarray:
        """Right pixels of each class, C integers."""
        return np.diag(self.counts).copy()

    @property
    def union(self) -> np.ndarray:
        """Pixels of each class that are true or predicted, C integers."""
        return self.counts.sum(1) + self.counts[:, :-1].sum(0) - self.intersection

    @property
    def counted(self) -> np.ndarray:
        """Whether each class is true or predicted somewhere, C booleans: the classes of the official mean."""
        return self.union > 0

    @property
    def in_truth(self) -> np.ndarray:
        """Whether each class has a true pixel, C booleans: the same for every method on the same labels."""
        return self.counts.sum(1) > 0

    @property
    def mean_iou(self) -> float:
        """The official mIoU in [0, 1], over the classes that are true or predicted somewhere; NaN without any pixel.

        As the Cityscapes scripts compute it. A class that is nowhere true counts as 0 once a single pixel is predicted
        as it, so that two methods' means may be over different classes: compare `mean_iou_truth`.
        """
        return _mean(self.iou)

    @property
    def mean_iou_truth(self) -> float:
        """mIoU in [0, 1] over the classes in the truth, whatever is predicted; NaN without any pixel."""
        return _mean(self.iou[self.in_truth])

    @property
    def pixel_accuracy(self) -> float:
        """Share of counted pixels that are right."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")

    @property
    def class_accuracy(self) -> float:
        """Mean over classes of the share of their pixels that are right; classes without pixels do not count."""
        return _mean(ratio(self.intersection, self.counts.sum(1)))

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU weighted by the classes' share of the counted pixels."""
        pixels = self.counts.sum(1)
        return float(np.nansum(self.iou * pixels) / pixels.sum()) if pixels.sum() else float("nan")

    def summary(self, names: Sequence[str]) -> dict[str, object]:
        """Every figure in percent, rounded to 0.01, ready for JSON; None where a figure has no pixel.

        `mIoU` is the official one, `mIoU_truth` that over the classes in the truth; `not_in_truth` names the others.
        """
        absent = [name for name, there in zip(names, self.in_truth.tolist(), strict=True) if not there]
        return {
            "mIoU": _percent(self.mean_iou),
            "mIoU_truth": _percent(self.mean_iou_truth),
            "not_in_truth": absent,
            "pixel_accuracy": _percent(self.pixel_accuracy),
            "class_accuracy": _percent(self.class_accuracy),
            "frequency_weighted_IoU": _percent(self.frequency_weighted_iou),
            "IoU": {name: _percent(value) for name, value in zip(names, self.iou.tolist(), strict=True)},
            "pixels": int(self.counts.sum()),
        }


def check_labels(name: str, values: Any, classes: int) -> None:
    """Refuses what is no array of whole numbers in −1..C−1; `name` is for the message.

    Raises:
        InputError: saying what came.
    """
    check_kind(f"{name} labels", values, "iub", "integers")
    if values.size and (values.min() < -1 or values.max() >= classes):
        raise InputError(f"expected {name} labels in -1..{classes - 1}, got {values.min()}..{values.max()}.")


def check_kind(name: str, values: Any, kinds: str, what: str) -> None:
    """Refuses what is no NumPy array of one of these kinds of dtype; `name` and `what` they are is for the message.

    Raises:
        InputError: saying what came.
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in kinds:
        came = f"one of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise InputError(f"expected {name} as an array of {what}, got {came}.")


def chunks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Arrays of one shape as rows of a million pixels at most, so that counting a large image takes little memory."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, CHUNK):
        yield tuple(array[start : start + CHUNK] for array in flat)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole as floats, NaN where the whole is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else round(100 * value, 2)
