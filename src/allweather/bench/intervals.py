"""Bootstrap intervals over images: of one mIoU, and of the difference of two methods on the same images."""

from dataclasses import dataclass

import numpy as np

from allweather.bench.metrics import ratio
from allweather.errors import InputError


@dataclass(frozen=True)
class Interval:
    """A figure with its percentile interval (Efron, 1979), in the figure's own unit."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class ImageCounts:
    """What a bootstrap needs of each image: N×C right pixels and N×C pixels true or predicted, per class."""

    intersection: np.ndarray
    union: np.ndarray

    def __post_init__(self) -> None:
        if self.intersection.shape != self.union.shape or self.union.ndim != 2 or not len(self.union):
            raise InputError(
                f"expected counts N×C of at least one image, got {self.intersection.shape} and {self.union.shape}."
            )

    def mean_iou(self, weights: np.ndarray) -> np.ndarray:
        """mIoU in [0, 1] of R resamples; weights R×N say how often each image counts.

        Classes that a resample does not hold are left out of its mean, as they are for the whole stream.
        """
        iou = ratio(weights @ self.intersection, weights @ self.union)
        present = ~np.isnan(iou)
        return ratio(np.where(present, iou, 0).sum(1), present.sum(1))


def bootstrap(counts: ImageCounts, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """mIoU in [0, 1] over all images together, with its interval over images."""
    images = len(counts.union)
    value = float(counts.mean_iou(np.ones((1, images)))[0])
    return _interval(value, counts.mean_iou(_resample(images, resamples, seed)), level)


def paired_difference(
    first: ImageCounts, second: ImageCounts, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """mIoU of `second` minus that of `first`; every resample takes the same images of both.

    Raises:
        AllWeatherError: when they do not hold the same number of images and classes.
    """
    if first.union.shape != second.union.shape:
        raise InputError(
            f"a paired difference needs the same images and classes, got {first.union.shape} and {second.union.shape}."
        )
    whole, drawn = np.ones((1, len(first.union))), _resample(len(first.union), resamples, seed)
    value = float((second.mean_iou(whole) - first.mean_iou(whole))[0])
    return _interval(value, second.mean_iou(drawn) - first.mean_iou(drawn), level)


def _resample(images: int, resamples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), resamples)


def _interval(value: float, drawn: np.ndarray, level: float) -> Interval:
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)
