"""Optimizer steps in proportion to the tensors that they move, so that one rate fits large and small weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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


def set_rates(groups: Sequence[dict[str, Any]], rate: float, whole: float) -> None:
    """Gives an optimizer's groups the rate of an update; where theirs differed at first, in proportion to `whole`.

    Args:
        whole: the rate that schedules are a share of; 0 where there is none.
    """
    first: list[Any] = [group.setdefault("initial_lr", group.get("lr")) for group in groups]
    alike = not whole or all(each == first[0] for each in first)
    for group, own in zip(groups, first, strict=True):
        group["lr"] = rate if alike else own * (rate / whole)
