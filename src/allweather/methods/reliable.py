"""Entropy of the pixels that a network is rather sure of: what ETA and SAR minimise."""

from math import log

from torch import Tensor


def pixel_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of every pixel's prediction, in nats: logits B×C×H×W → B×H×W."""
    log_probabilities = logits.float().log_softmax(1)
    return -(log_probabilities.exp() * log_probabilities).sum(1)


def reliable(entropy: Tensor, margin: float, classes: int) -> Tensor:
    """Which pixels count, B×H×W: those whose entropy is under `margin` · ln C (Niu et al., EATA, Eq. 3)."""
    return entropy.detach() < margin * log(classes)
