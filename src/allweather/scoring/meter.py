"""What every metric over pixels is: it counts one frame after another and has figures at the end."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from allweather.data.labelled import Truth
from allweather.errors import InputError
from allweather.scoring.confusion import check_kind, check_labels


@dataclass(frozen=True, eq=False)
class Prediction:
    """One frame as a meter sees it, at its truth's size.

    Attributes:
        labels: H×W indices of the truth's classes, −1 for none of them.
        confidence: H×W, the largest probability of each pixel, in [0, 1].
    """

    labels: np.ndarray
    confidence: np.ndarray


class Meter(ABC):
    """A metric over the pixels of a stream; `scoring.METERS` lists those that every record holds."""

    @abstractmethod
    def update(self, prediction: Prediction, truth: Truth) -> Self:
        """Counts one frame. Returns itself.

        Raises:
            InputError: for shapes that differ or values out of range.
        """

    @abstractmethod
    def figures(self) -> dict[str, float | None]:
        """Name → figure, rounded as records hold it; nothing where no frame could be counted."""

    def details(self) -> dict[str, Any]:
        """What a record holds besides, ready for JSON, by its key."""
        return {}


def check_confidence(values: np.ndarray) -> None:
    """Refuses confidences outside [0, 1], a rounding apart, and NaN.

    Raises:
        InputError: saying between which values they lie.
    """
    if values.size and not (values.min() >= 0 and values.max() <= 1 + 1e-6):
        raise InputError(f"expected confidence in [0, 1], got {values.min()}..{values.max()}.")


def check_shapes(prediction: Prediction, truth: Truth, classes: int | None = None) -> None:
    """Refuses what are no arrays of one shape: labels of whole numbers, confidence of numbers.

    Args:
        classes: C; labels outside −1..C−1 are refused too. None does not look at their values.

    Raises:
        InputError: for a tensor, labels of floats, shapes that differ, and labels out of range.
    """
    labels = (("predicted", prediction.labels), ("true", truth.labels))
    for name, values in labels:
        check_kind(f"{name} labels", values, "iub", "integers")
    others = [("confidence", prediction.confidence)]
    others += [] if truth.invalid is None else [("the mask of what cannot be seen", truth.invalid)]
    for name, values in others:
        check_kind(name, values, "fiub", "numbers")
    shapes = [values.shape for _, values in (*labels, *others)]
    if len(set(shapes)) > 1:
        raise InputError(f"expected arrays of one shape, got {', '.join(map(str, shapes))}.")
    if classes is not None:
        for name, values in labels:
            check_labels(name, values, classes)
