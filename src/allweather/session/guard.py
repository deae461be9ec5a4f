"""The collapse guard's limits, and the signs by which two predictions of the same images are compared."""

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional

from allweather.ncut import Affinity

_SURE, _PRESENT = 0.98, 0.0005  # confidence of a sure pixel; share of all pixels that makes a class count
_ENOUGH = 128 * 128  # pixels of an image that signs are taken from; more change them in the third digit


@dataclass(frozen=True)
class Guard:
    """Limits beyond which an update counts as harm, whatever the method, and what is done about it.

    An adapted prediction is compared with that of the unadapted network on the same images (same BatchNorm mode).
    Beyond a limit the session goes part of the way back to the last good state and is judged again (`shrunk`); if
    that does not help, all of the way (`rolled back`); and along a stream, where that has become frequent, to the
    source network (`reset`), which then predicts unadapted for a while.

    What it costs. Methods that reset have the unadapted prediction for free: a twentieth of a millisecond per
    thousand pixels. Along a stream the effective number of classes and the entropy of every prediction are compared
    with the usual ones (as cheap); the forward pass of the source network is made after each of the first updates,
    then after 2, 4, … at most `every` for as long as these find nothing near a limit, and at once where a prediction is
    unlike the usual ones. Only where more than `closer_look` of the labels differ do four more forward passes compare
    the predictions of mirrored images, and a normalized cut on at most 64×64 pixels is taken of both predictions (a few
    milliseconds). Each halving is one forward pass.

    Attributes:
        enabled: False accepts every finite prediction.
        min_classes: the effective number of predicted classes, exp of the entropy of the mean prediction, may
            not fall below this share of the reference's (mass collapsing onto few classes).
        min_entropy: the mean entropy of the pixels' predictions may not fall below this share of the
            reference's (entropy collapse).
        max_drift: share of the prediction's mass, 0..1, that may move between classes.
        max_disagreement: share of pixels, 0..1, whose label may differ from the reference's.
        min_kept: of the pixels whose class the reference is sure of, the share that may not be fallen short of in
            keeping it, averaged over its classes so that small ones count.
        closer_look: share of pixels whose label differs from which on the next two are looked at.
        max_flip: how many times the reference's the L1 distance between the predictions of the images and of their
            mirror images may be.
        max_ncut: how many times the reference's the normalized cut, weighted by class mass, may be.
        every: most updates along a stream between two comparisons with the source network.
        halvings: how often the way to the last good state is halved before the whole way is gone.
        strikes: so many refusals among the last ten comparisons along a stream bring the source network back.
        max_repeats: so many equal batches in a row along a stream, as of a camera that hangs, teach nothing more; they
            are predicted without adapting further.
        rest: batches that are then predicted without adapting; twice as many each further time, at most eightfold.
    """

    enabled: bool = True
    min_classes: float = 0.8
    min_entropy: float = 0.5
    max_drift: float = 0.2
    max_disagreement: float = 0.3
    min_kept: float = 0.99
    closer_look: float = 0.15
    max_flip: float = 1.25
    max_ncut: float = 1.15
    every: int = 10
    halvings: int = 2
    strikes: int = 3
    max_repeats: int = 20
    rest: int = 10

    def verdict(self, signs: "Signs") -> str | None:
        """Why a prediction with these signs must not stand; None when it may as far as they say."""
        if not self.enabled:
            return None
        if signs.classes < self.min_classes:
            return f"classes collapse to {signs.classes:.2f} of the reference's effective number"
        if signs.entropy < self.min_entropy:
            return f"entropy collapses to {signs.entropy:.2f} of the reference's"
        if signs.drift > self.max_drift:
            return f"{signs.drift:.0%} of the prediction's mass moves to other classes"
        if signs.disagreement > self.max_disagreement:
            return f"{signs.disagreement:.0%} of the pixels leave the reference's label"
        if signs.kept < self.min_kept:
            return f"classes keep {signs.kept:.2f} of the pixels where the reference is sure of them"
        return None

    def calm(self, signs: "Signs") -> bool:
        """Whether the signs are so far from harm that the next comparison may wait longer."""
        return 1 - signs.kept <= (1 - self.min_kept) / 2

    def closer_verdict(self, flip: float, ncut: float) -> str | None:
        """The same for the change under mirroring and the normalized cut, as ratios to the reference's."""
        if flip > self.max_flip:
            return f"mirroring the image changes the prediction {flip:.2f} times as much as the reference"
        if ncut > self.max_ncut:
            return f"the normalized cut rises to {ncut:.2f} of the reference's"
        return None

    def unusual(self, classes: float, entropy: float) -> bool:
        """Whether ratios to the usual number of classes and entropy ask for a comparison out of turn."""
        return classes < self.min_classes or entropy < self.min_entropy or entropy * self.min_entropy > 1


@dataclass(frozen=True)
class Signs:
    """How an adapted prediction stands to the reference; see `Guard` for the meaning of each."""

    classes: float
    entropy: float
    drift: float
    disagreement: float
    kept: float = 1.0


def compare(reference: Tensor, adapted: Tensor) -> Signs:
    """The signs of `adapted` logits B×C×H×W beside the `reference` ones, from a grid of their pixels."""
    before, after = _thinned(reference), _thinned(adapted)
    (mass, entropy), (new_mass, new_entropy) = _mass_and_entropy(before), _mass_and_entropy(after)
    numbers = torch.stack(
        [
            effective_classes(new_mass) / effective_classes(mass),
            new_entropy / entropy.clamp_min(1e-6),
            (new_mass - mass).abs().sum() / 2,
            (before.argmax(1) != after.argmax(1)).float().mean(),
            _kept(before, after),
        ]
    )
    return Signs(*numbers.tolist())


def _kept(before: Tensor, after: Tensor) -> Tensor:
    """Of the pixels whose class `before` is sure of, the share that keeps it in `after`; the mean over classes."""
    confidence, labels = before.float().softmax(1).max(1)
    sure = (confidence > _SURE).float()
    same = sure * (after.argmax(1) == labels)
    empty = sure.new_zeros(before.shape[1])
    total, kept = (empty.scatter_add(0, labels.flatten(), weight.flatten()) for weight in (sure, same))
    counted = (total >= _PRESENT * labels.numel()).float()
    return ((kept / total.clamp_min(1)) * counted).sum().add(counted.sum() == 0) / counted.sum().clamp_min(1)


def summary(logits: Tensor) -> Tensor:
    """The effective number of classes and the mean pixel entropy (nats) of logits B×C×H×W: two numbers."""
    mass, entropy = _mass_and_entropy(_thinned(logits))
    return torch.stack([effective_classes(mass), entropy])


def mirror_change(logits: Tensor, mirrored: Tensor) -> Tensor:
    """Mean L1 distance, 0..2, of the probabilities of images and of mirrored images; logits B×C×H×W each."""
    change = logits.float().softmax(1) - mirrored.flip(3).float().softmax(1)
    return change.abs().sum(1).mean()


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


def _mass_and_entropy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The mean prediction, C, and the mean entropy of the pixels."""
    log_probabilities = logits.float().log_softmax(1)
    probabilities = log_probabilities.exp()
    return probabilities.mean((0, 2, 3)), -(probabilities * log_probabilities).sum(1).mean()
