"""Losses that methods share: entropy of pixels, of mean predictions, and the labels that cross-entropy leaves out."""

from math import log
from typing import Any, cast

import torch
from torch import Tensor

IGNORED = -1  # label of a pixel that teaches nothing


def pixel_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of every pixel's prediction, in nats: logits B×C×H×W → B×H×W, values in [0, ln C]."""
    return cast(Tensor, _PixelEntropy.apply(logits.float())[0])


class _PixelEntropy(torch.autograd.Function):
    """The same with its gradient −p (ln p + H) in closed form: two arrays of the logits' size instead of five.

    ln p is an output beside H, so that autograd knows what the gradient is made of and can differentiate it again.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        log_probabilities = logits.log_softmax(1)
        probabilities = log_probabilities.exp()
        entropy = -(probabilities * log_probabilities).sum(1)
        ctx.save_for_backward(probabilities, log_probabilities, entropy)
        ctx.set_materialize_grads(False)
        return entropy, log_probabilities

    @staticmethod
    def backward(ctx: Any, of_entropy: Tensor | None, of_logs: Tensor | None) -> Tensor | None:
        probabilities, log_probabilities, entropy = ctx.saved_tensors
        if torch.is_grad_enabled():  # of create_graph: what forward made on its way is a constant to autograd
            probabilities = log_probabilities.exp()
        found: Tensor | None = None
        if of_entropy is not None:
            found = (log_probabilities + entropy[:, None]).mul_(probabilities).mul_(-of_entropy[:, None])
        if of_logs is not None:
            further = of_logs - probabilities * of_logs.sum(1, keepdim=True)
            found = further if found is None else found + further
        return found


def mean_entropy(logits: Tensor) -> Tensor:
    """Mean Shannon entropy of the pixels' predictions, in nats; logits B×C×H×W → a number in [0, ln C]."""
    return pixel_entropy(logits).mean()


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy, in nats, of distributions along dimension 1: B×C×… → B×…"""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(1)


def diversity(probabilities: Tensor) -> Tensor:
    """Entropy of the mean prediction of each image, in nats, averaged over the batch; B×C×H×W → a number."""
    return entropy(probabilities.mean((2, 3))).mean()


def reliable(entropy: Tensor, margin: float, classes: int) -> Tensor:
    """Which pixels count, B×H×W: those whose entropy is under `margin` · ln C (Niu et al., EATA, Eq. 3)."""
    return entropy.detach() < margin * log(classes)


def confident_labels(probabilities: Tensor, threshold: float) -> Tensor:
    """Classes B×H×W of probabilities B×C×H×W, `IGNORED` where the largest is not above `threshold`."""
    confidence, labels = probabilities.detach().max(1)
    return labels.masked_fill(confidence <= threshold, IGNORED)
