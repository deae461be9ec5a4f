"""Scoring outcomes as they come: per image, per piece of a sequence, and over the whole stream."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from allweather.data.labelled import LabelledStream, Truth
from allweather.data.labels import ClassMapping
from allweather.errors import ImageError
from allweather.finite import or_none
from allweather.models.placing import device_of
from allweather.models.segmenter import Segmenter
from allweather.ncut import Affinity
from allweather.pictures.enlarge import classify
from allweather.runs.decisions import STREAM_PASSES, decisions_of
from allweather.runs.evaluate import Outcome
from allweather.runs.passes import summed
from allweather.runs.record import describe_result, watched_ends
from allweather.scoring import METERS
from allweather.scoring.confusion import ConfusionMatrix
from allweather.scoring.intervals import ImageCounts, bootstrap, frames_of
from allweather.scoring.means import mean_of
from allweather.scoring.meter import Prediction

SCALE, SIGMA_RGB, SIGMA_XY = 0.5, 15.0, 100.0  # of the cut that every record holds, whatever its method minimised
Keep = Callable[[str, np.ndarray], None]


class Scorer:
    """All figures of one run.

    Args:
        mapping: from the network's classes to the truth's.
        labelled: the stream with its truth.
        unadapted: the network as it came, whose normalized cut is the one before adaptation.
        keep: is given every scored frame's name and prediction, H×W indices of the truth's classes.
    """

    def __init__(
        self, mapping: ClassMapping, labelled: LabelledStream, unadapted: Segmenter, keep: Keep | None = None
    ) -> None:
        self._mapping, self._labelled, self._unadapted, self._keep = mapping, labelled, unadapted, keep
        classes = len(mapping.truth)
        self.matrix, self.meters = ConfusionMatrix(classes), [meter(mapping.truth) for meter in METERS]
        self.parts: dict[str, ConfusionMatrix] = {}
        self.images: list[dict[str, Any]] = []
        self.failures: dict[str, str] = {}
        self._sizes: dict[str, set[tuple[int, int]]] = {"stored": set(), "input": set(), "scored": set()}

    def add(self, outcome: Outcome) -> None:
        """Scores one frame at its truth's size; one without a prediction, or that cannot be scored, is listed."""
        if outcome.frame is None or outcome.logits is None:
            self.failures[outcome.name] = outcome.failure or "no prediction"
            return
        try:
            truth = self._labelled.truth(outcome.name, outcome.frame.size)
        except ImageError as error:
            self.failures[outcome.name] = str(error)
            return
        confidence, predicted = classify(outcome.logits, truth.labels.shape)
        prediction = Prediction(self._mapping.counted_as(predicted), confidence)
        image = self._count(outcome.name, prediction, truth)
        if self._keep is not None:
            self._keep(outcome.name, prediction.labels)
        self._sizes["stored"].add(outcome.frame.size)
        self._sizes["input"].add((outcome.frame.image.shape[2], outcome.frame.image.shape[1]))
        self._sizes["scored"].add((truth.labels.shape[1], truth.labels.shape[0]))
        cuts = cuts_of(outcome.frame.image, (self._before(outcome.frame.image), outcome.logits))
        self.images.append({"name": outcome.name, **_scores(image), **cuts, **_adaptation(outcome)})

    def _count(self, name: str, prediction: Prediction, truth: Truth) -> ConfusionMatrix:
        """Gives a frame to every meter; its own confusion matrix."""
        image = ConfusionMatrix(len(self._mapping.truth)).update(prediction.labels, truth.labels)
        self.matrix += image
        for meter in self.meters:
            meter.update(prediction, truth)
        if part := self._labelled.parts.get(name):
            self.parts[part] = self.parts.get(part, ConfusionMatrix(image.classes)) + image
        return image

    @torch.no_grad()
    def _before(self, image: Tensor) -> Tensor:
        """Logits C×H×W of the network as it came."""
        return self._unadapted(image[None].to(device_of(self._unadapted)))[0]

    def content(self) -> dict[str, Any]:
        """The figures, ready for JSON, percentages where a name says mIoU or IoU."""
        names = self._mapping.truth.names
        intersection, union = (np.array([entry[key] for entry in self.images]) for key in ("intersection", "union"))
        firsts = self._labelled.firsts
        frames = frames_of([entry["name"] for entry in self.images], firsts)
        counts = ImageCounts(intersection, union, frames=frames)
        interval = bootstrap(counts, convention="official")
        content: dict[str, Any] = {
            "figures": {
                **self.matrix.summary(names),
                "interval": or_none([round(100 * interval.low, 2), round(100 * interval.high, 2)]),
                "level": interval.level,
                **{name: figure for meter in self.meters for name, figure in meter.figures().items()},
                "images": len(self.images),
                **{name: _mean([entry[name] for entry in self.images]) for name in ("ncut_before", "ncut")},
            },
            "resolution": {
                kind: [f"{width}x{height}" for width, height in sorted(found)] for kind, found in self._sizes.items()
            },
            "confusion": self.matrix.counts.tolist(),
            **{key: value for meter in self.meters for key, value in meter.details().items()},
            "seconds": round(sum(entry.get("seconds", 0.0) for entry in self.images), 2),
            "decisions": decisions_of({"images": self.images}),
            "images": self.images,
            "failures": self.failures,
        }
        if passes := summed(self.images):
            content[STREAM_PASSES] = passes
        if self.parts:
            content["parts"] = {
                name: {**matrix.summary(names), "first": firsts[name]} for name, matrix in self.parts.items()
            }
        return content


@torch.no_grad()
def cuts_of(image: Tensor, logits: tuple[Tensor, Tensor]) -> dict[str, float | None]:
    """The normalized cut before and after adaptation, in the affinity that every record uses; all at one size.

    None for a prediction that is not finite, as the network's before adaptation may be.
    """
    size = [max(1, round(side * SCALE)) for side in logits[1].shape[1:]]
    picture = functional.interpolate(image[None].to(logits[1].device), size, mode="bilinear", antialias=True)
    affinity = Affinity.from_image(picture, sigma_rgb=SIGMA_RGB, sigma_xy=SIGMA_XY * SCALE)
    found: dict[str, float | None] = {}
    for name, prediction in zip(("ncut_before", "ncut"), logits, strict=True):
        scores = functional.interpolate(prediction[None].float(), size, mode="bilinear").softmax(1)
        (found[name],) = or_none([round(float(affinity.normalized_cut(scores)), 5)])
    return found


def _mean(values: list[float | None]) -> float | None:
    """Over the frames that have a value; None where none has."""
    mean = mean_of(values)
    return None if mean is None else round(mean, 5)


def _scores(image: ConfusionMatrix) -> dict[str, Any]:
    mean = image.mean_iou
    return {
        "mIoU": None if np.isnan(mean) else round(100 * mean, 2),
        "intersection": image.intersection.tolist(),
        "union": image.union.tolist(),
        "only_predicted": np.flatnonzero(image.counted & ~image.in_truth).tolist(),
    }


def _adaptation(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    if result is None:
        return outcome.learnt or {}
    return watched_ends(result) | describe_result(result)
