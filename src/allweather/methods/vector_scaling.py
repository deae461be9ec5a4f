"""Vector scaling by the normalized cut: a gain and a bias per class of the prediction, moved without labels."""

from collections.abc import Callable

import torch
from torch import Tensor

from allweather.ncut import Affinity

# The form is that of Guo et al., On calibration of modern neural networks, ICML 2017, §4.2, on ln of probabilities.


def unscaled(classes: int, device: torch.device) -> Tensor:
    """How far gains and biases have moved at the beginning, 2×C×1×1: not at all."""
    return torch.zeros(2, classes, 1, 1, device=device, dtype=torch.float32)


def scaled(logits: Tensor, moved: Tensor) -> Tensor:
    """ln of probabilities B×C×H×W times 1 plus how far each class's gain has moved, plus its bias; 2×C×1×1 or 2×B×…."""
    gain, bias = moved
    return torch.addcmul(bias, logits, 1 + gain)


def moved_by_cut(
    moved: Tensor, logits: Tensor, affinity: Affinity, length: float, still: Tensor | None = None
) -> Tensor:
    """Gains and biases after one step down the normalized cut, as `step_down`; logits on the grid of the affinity.

    A class whose regions are badly cut gives way to classes that fit the image better. Images that are `still`,
    B×1×1×1, have no say.
    """

    def loss(after: Tensor) -> Tensor:
        return affinity.normalized_cut((after if still is None else torch.where(still, logits, after)).softmax(1))

    return step_down(moved, logits, loss, length)


def step_down(moved: Tensor, logits: Tensor, loss: Callable[[Tensor], Tensor], length: float) -> Tensor:
    """Gains and biases after one step down a loss: 2×C×1×1.

    Args:
        moved: where they are.
        logits: ln of probabilities B×C×h×w.
        loss: of the scaled logits, a number.
        length: of the step: what the gain moves that moves most, and the bias that does.
    """
    with torch.enable_grad():
        asked = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(scaled(logits, asked)), asked)
    largest = slope.abs().amax(1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
    return moved - length * slope / largest
