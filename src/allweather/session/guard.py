"""The collapse guard: compares an adapted prediction with the unadapted one and says when to roll back."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Guard:
    """Limits beyond which an update counts as harm, whatever the method.

    The reference is the prediction of the unadapted network on the same images (same BatchNorm mode).

    Attributes:
        enabled: False accepts every finite prediction.
        min_classes: the effective number of predicted classes, exp of the entropy of the mean prediction, may
            not fall below this share of the reference's (mass collapsing onto few classes).
        min_entropy: the mean entropy of the pixels' predictions may not fall below this share of the
            reference's (entropy collapse).
        max_disagreement: share of pixels, 0..1, whose label may differ from the reference's.
        every: along a stream without resets the reference costs one forward pass of the source network; it is
            made on every such batch. Non-finite predictions are looked for on every batch.
    """

    enabled: bool = True
    min_classes: float = 0.6
    min_entropy: float = 0.25
    max_disagreement: float = 0.3
    every: int = 10

    def verdict(self, reference: Tensor, adapted: Tensor) -> str | None:
        """Why `adapted` logits B×C×H×W must not stand beside the `reference` ones; None when they may."""
        if not self.enabled:
            return None
        before, after = _summary(reference), _summary(adapted)
        disagreement = (reference.argmax(1) != adapted.argmax(1)).float().mean()
        classes, entropy, changed = torch.stack(
            [after[0] / before[0], after[1] / before[1].clamp_min(1e-6), disagreement]
        ).tolist()
        if classes < self.min_classes:
            return f"classes collapse to {classes:.2f} of the reference's effective number"
        if entropy < self.min_entropy:
            return f"entropy collapses to {entropy:.2f} of the reference's"
        if changed > self.max_disagreement:
            return f"{changed:.0%} of the pixels leave the reference's label"
        return None


def _summary(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The effective number of classes and the mean pixel entropy (nats) of logits B×C×H×W."""
    log_probabilities = logits.float().log_softmax(1)
    probabilities = log_probabilities.exp()
    mass = probabilities.mean((0, 2, 3))
    classes = torch.exp(-(mass * mass.clamp_min(1e-12).log()).sum())
    return classes, -(probabilities * log_probabilities).sum(1).mean()
