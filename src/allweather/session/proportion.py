"""Optimizer steps in proportion to the tensors that they move, so that one rate fits large and small weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_LEAST = 1e-3  # of a tensor that is zero, as in Adafactor, Shazeer and Stern, ICML 2018, Alg. 4


def root_mean_square(parameter: Tensor) -> float:
    """The root mean square of a tensor's numbers, by which relative steps are multiplied.

    It is computed on the CPU: not every device has float64.
    """
    return max(_LEAST, float(parameter.detach().cpu().double().square().mean().sqrt()))


@contextmanager
def in_proportion(parameters: Sequence[nn.Parameter], scales: Sequence[float]) -> Iterator[None]:
    """Inside, the step of an optimizer on each parameter is multiplied by its scale."""
    before = [parameter.detach().clone() for parameter in parameters]
    yield
    with torch.no_grad():
        for parameter, old, scale in zip(parameters, before, scales, strict=True):
            parameter.copy_(torch.lerp(old, parameter, scale))
