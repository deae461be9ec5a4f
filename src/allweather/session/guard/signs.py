"""The signs of harm: how two predictions of the same images differ, in numbers."""

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional

from allweather.ncut import Affinity

_SURE, _PRESENT = 0.98, 0.0005  # confidence of a sure pixel; share of all pixels that makes a class count
_ENOUGH = 128 * 128  # pixels of an image that signs are taken from; more change them in the third digit


@dataclass(frozen=True)
class Signs:
    """How an adapted prediction stands to the reference; see `Guard` for the meaning of each."""

    classes: float
    entropy: float
    drift: float
    disagreement: float
    kept: float = 1.0
    left: float = 0.0


# of a prediction that nothing is measured by
STILL = Signs(classes=1.0, entropy=1.0, drift=0.0, disagreement=-1.0, left=-1.0)


def compare(reference: Tensor, adapted: Tensor) -> Signs:
    """The signs of `adapted` logits B×C×H×W beside the `reference` ones, from a grid of their pixels."""
    before, after = (_log_probabilities(logits) for logits in (reference, adapted))
    (mass, entropy), (new_mass, new_entropy) = _mass_and_entropy(before), _mass_and_entropy(after)
    (confidence, labels), new_labels = before.max(1), after.max(1).indices
    numbers = torch.stack(
        [
            effective_classes(new_mass) / effective_classes(mass),
            new_entropy / entropy.clamp_min(1e-6),
            (new_mass - mass).abs().sum() / 2,
            (labels != new_labels).float().mean(),
            _kept(labels, new_labels, confidence.exp() > _SURE, len(mass)),
            1 - _kept(labels, new_labels, torch.ones_like(labels, dtype=torch.bool), len(mass)),
        ]
    )
    return Signs(*numbers.tolist())


def _kept(labels: Tensor, new_labels: Tensor, counted: Tensor, classes: int) -> Tensor:
    """Of the pixels that count, the share that keeps its label; the mean over classes. B×H×W each."""
    weight = counted.float()
    same = weight * (new_labels == labels)
    empty = weight.new_zeros(classes)
    total, kept = (empty.scatter_add(0, labels.flatten(), each.flatten()) for each in (weight, same))
    present = (total >= _PRESENT * labels.numel()).float()
    return ((kept / total.clamp_min(1)) * present).sum().add(present.sum() == 0) / present.sum().clamp_min(1)


def summary(logits: Tensor) -> Tensor:
    """The effective number of classes and the mean pixel entropy (nats) of logits B×C×H×W: two numbers."""
    mass, entropy = _mass_and_entropy(_log_probabilities(logits))
    return torch.stack([effective_classes(mass), entropy])


def mirror_change(logits: Tensor, mirrored: Tensor) -> Tensor:
    """Mean L1 distance, 0..2, of the probabilities of images and of mirrored images; logits B×C×H×W each."""
    change = logits.float().softmax(1) - mirrored.flip(3).float().softmax(1)
    return change.abs().sum(1).mean()


def changed_labels(logits: Tensor, mirrored: Tensor) -> float:
    """Share of the pixels, 0..1, whose label differs between two predictions of one image; logits B×C×H×W each."""
    labels, others = (_thinned(each).max(1).indices for each in (logits, mirrored))
    return float((labels != others).float().mean())


def cuts(images: Tensor, predictions: list[Tensor]) -> list[float]:
    """The normalized cut, weighted by class mass, of each of the logits B×C×H×W on a small grid; in [0, 1]."""
    height, width = images.shape[2:]
    scale = min(1.0, 64 / max(height, width))
    size = [max(1, round(side * scale)) for side in (height, width)]
    small = functional.interpolate(images, size, mode="bilinear", antialias=True)
    affinity = Affinity.from_image(small, sigma_rgb=15.0, sigma_xy=max(size) / 5, rank=32)
    values = []
    for logits in predictions:
        scores = functional.interpolate(logits.float(), size, mode="bilinear", antialias=True).softmax(1)
        values.append(affinity.normalized_cut(scores, scores.mean((2, 3))))
    found: list[float] = torch.stack(values).tolist()
    return found


def effective_classes(mass: Tensor) -> Tensor:
    """exp of the entropy of a distribution over C classes."""
    return torch.exp(-(mass * mass.clamp_min(1e-12).log()).sum())


def _thinned(logits: Tensor) -> Tensor:
    step = max(1, isqrt(logits.shape[2] * logits.shape[3] // _ENOUGH))
    return logits[:, :, step // 2 :: step, step // 2 :: step]


def _log_probabilities(logits: Tensor) -> Tensor:
    """Of a grid of the pixels, in float32."""
    return _thinned(logits).float().log_softmax(1)


def _mass_and_entropy(log_probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """The mean prediction, C, and the mean entropy of the pixels."""
    probabilities = log_probabilities.exp()
    return probabilities.mean((0, 2, 3)), -(probabilities * log_probabilities).sum(1).mean()
