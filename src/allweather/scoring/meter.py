"""What every metric over pixels is: it counts one frame after another and has figures at the end."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from allweather.data.labelled import Truth
from allweather.errors import InputError


@dataclass(frozen=True)
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


def check_shapes(prediction: Prediction, truth: Truth) -> None:
    """Refuses arrays of different shapes.

    Raises:
        InputError: where they differ.
    """
    arrays = [prediction.labels, prediction.confidence, truth.labels]
    shapes = [array.shape for array in [*arrays, *([] if truth.invalid is None else [truth.invalid])]]
    if len(set(shapes)) > 1:
        raise InputError(f"expected arrays of one shape, got {', '.join(map(str, shapes))}.")
