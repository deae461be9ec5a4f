"""Uncertainty-aware IoU (Sakaridis et al., ICCV 2019, section 5): credit for saying where the class cannot be seen."""

from typing import Self

import numpy as np

from allweather.data.labelled import Truth
from allweather.errors import SettingsError
from allweather.scoring.confusion import chunks, ratio
from allweather.scoring.meter import Meter, Prediction, check_confidence, check_shapes


class UncertaintyAwareIou(Meter):
    """UIoU of each class at each confidence threshold θ, accumulated over a stream.

    A pixel is predicted invalid where its confidence is below θ. For a class, true invalid are its pixels that the
    mask calls invalid and the prediction too, false invalid its valid pixels predicted invalid, and
    UIoU = (TP + TI) / (TP + TI + FP + FN + FI), with TP, FP and FN among pixels predicted valid. At θ = 0 it is IoU.
    A predicted −1 is wrong for every class.

    Args:
        classes: C.
        thresholds: ascending; by default eleven from 1/C, the least a largest probability can be, to 1.
    """

    def __init__(self, classes: int, thresholds: np.ndarray | None = None) -> None:
        self.classes = classes
        self.thresholds = np.linspace(1 / classes, 1, 11) if thresholds is None else np.asarray(thresholds, float)
        if self.thresholds.ndim != 1 or not (np.diff(self.thresholds) >= 0).all():
            raise SettingsError(f"expected ascending thresholds, got {self.thresholds.tolist()}.")
        # true class, predicted class or none, thresholds met, called invalid by the mask
        self.counts = np.zeros((classes, classes + 1, len(self.thresholds) + 1, 2), np.int64)

    def update(self, prediction: Prediction, truth: Truth) -> Self:
        """Counts one frame whose mask says where the class cannot be seen; one without a mask does not count.

        Raises:
            InputError: for shapes that differ, labels outside −1..C−1 or confidence outside [0, 1].
        """
        check_shapes(prediction, truth, self.classes)
        if truth.invalid is None:
            return self
        check_confidence(prediction.confidence)
        for part in chunks(prediction.labels, prediction.confidence, truth.labels, truth.invalid):
            self._count(*part)
        return self

    def figures(self) -> dict[str, float | None]:
        """`mUIoU`, in %, where any frame had a mask."""
        return {"mUIoU": round(100 * self.average, 2)} if self.counts.any() else {}

    def _count(self, predicted: np.ndarray, confidence: np.ndarray, truth: np.ndarray, invalid: np.ndarray) -> None:
        counted = truth >= 0
        met = np.searchsorted(self.thresholds, confidence[counted], side="right")
        said = predicted[counted]
        said = np.where(said < 0, self.classes, said).astype(np.int64)
        cells = (truth[counted].astype(np.int64), said, met, invalid[counted].astype(bool).astype(np.int64))
        flat = np.ravel_multi_index(cells, self.counts.shape)
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)

    @property
    def uiou(self) -> np.ndarray:
        """C×T in [0, 1]; NaN for a class neither true nor predicted at that threshold."""
        answered = self.counts.sum(3)[:, :, ::-1].cumsum(2)[:, :, ::-1][:, :, 1:]  # C×(C+1)×T, predicted valid
        silent = self.counts.sum(1).cumsum(1)[:, :-1]  # C×T×2, predicted invalid, by mask
        right = np.einsum("cct->ct", answered[:, :-1])
        true_invalid, false_invalid = silent[:, :, 1], silent[:, :, 0]
        union = answered.sum(1) + answered[:, :-1].sum(0) - right + true_invalid + false_invalid
        return ratio(right + true_invalid, union)

    @property
    def mean(self) -> np.ndarray:
        """T mean UIoU over the classes present."""
        values = self.uiou
        present = ~np.isnan(values)
        return ratio(np.where(present, values, 0).sum(0), present.sum(0))

    @property
    def average(self) -> float:
        """Mean UIoU averaged over the thresholds, in [0, 1]."""
        return float(np.nanmean(self.mean)) if self.counts.any() else float("nan")
