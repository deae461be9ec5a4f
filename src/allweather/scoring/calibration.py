"""How far confidence can be trusted: reliability diagram and expected calibration error over a stream's pixels."""

from typing import Any, Self

import numpy as np

from allweather.data.labelled import Truth
from allweather.errors import InputError
from allweather.scoring.confusion import chunks, ratio
from allweather.scoring.meter import Meter, Prediction, check_confidence, check_shapes


class Reliability(Meter):
    """Accuracy against confidence in equal bins of confidence (Guo et al., ICML 2017).

    Args:
        bins: over [0, 1], each with its upper end included, the first with both.
        classes: C; labels outside −1..C−1 are refused. None takes every label from 0 on for a class, 255 too.

    Raises:
        InputError: for less than one bin.
    """

    def __init__(self, bins: int = 15, classes: int | None = None) -> None:
        if bins < 1:
            raise InputError(f"expected at least one bin, got {bins}.")
        self.classes = classes
        self.pixels, self.hits = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
        self.confidence = np.zeros(bins)

    def update(self, prediction: Prediction, truth: Truth) -> Self:
        """Counts one frame.

        Raises:
            InputError: for shapes that differ, labels outside −1..C−1 or confidence outside [0, 1].
        """
        check_shapes(prediction, truth, self.classes)
        check_confidence(prediction.confidence)
        for part in chunks(prediction.confidence, prediction.labels, truth.labels):
            self._count(*part)
        return self

    def figures(self) -> dict[str, float | None]:
        """`calibration_error`, in [0, 1]."""
        return {"calibration_error": round(self.expected_calibration_error, 4)} if self.pixels.any() else {}

    def details(self) -> dict[str, Any]:
        """`reliability`: the diagram."""
        return {"reliability": self.diagram()}

    def _count(self, confidence: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> None:
        counted = truth >= 0
        sure = confidence[counted].astype(np.float64)
        bins = len(self.pixels)
        index = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
        self.pixels += np.bincount(index, minlength=bins)
        self.confidence += np.bincount(index, sure, bins)
        self.hits += np.bincount(index[predicted[counted] == truth[counted]], minlength=bins)

    def __add__(self, other: "Reliability") -> "Reliability":
        """Both sets of images together.

        Raises:
            InputError: for diagrams of different numbers of bins or classes.
        """
        own, others = (len(self.pixels), self.classes), (len(other.pixels), other.classes)
        if own != others:
            raise InputError(f"expected diagrams of equally many bins and classes, got {own} and {others}.")
        made = Reliability(len(self.pixels), self.classes)
        made.pixels, made.hits = self.pixels + other.pixels, self.hits + other.hits
        made.confidence = self.confidence + other.confidence
        return made

    @property
    def expected_calibration_error(self) -> float:
        """Mean over pixels of |accuracy − confidence| of their bin, in [0, 1]; NaN without any pixel."""
        total = self.pixels.sum()
        return float(np.abs(self.hits - self.confidence).sum() / total) if total else float("nan")

    def diagram(self) -> list[dict[str, float | int]]:
        """One row per bin that holds pixels: pixels, mean confidence, accuracy; ready for JSON."""
        confidence, accuracy = ratio(self.confidence, self.pixels), ratio(self.hits, self.pixels)
        return [
            {"pixels": int(count), "confidence": round(float(sure), 4), "accuracy": round(float(right), 4)}
            for count, sure, right in zip(self.pixels, confidence, accuracy, strict=True)
            if count
        ]
