"""Gradients through a user's network: what stops one is said in one line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from allweather.errors import NetworkError, first_line
from allweather.models.segmenter import Segmenter
from allweather.plugins import FAULTS


@contextmanager
def gradient_through(model: Segmenter, moved: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Takes a gradient inside, of `moved` where it is given; memory that runs out goes on its way.

    Raises:
        NetworkError: where the network gives none: layers that write over what a gradient needs, a backward pass of
            its own that fails, an output cut from what moves.
    """
    try:
        yield
        if moved is not None and all(parameter.grad is None for parameter in moved.values()):
            names = ", ".join(list(moved)[:2]) + (", …" if len(moved) > 2 else "")
            raise RuntimeError(f"none reaches {names}: a layer behind them gives none, as quantized ones do")
    except torch.OutOfMemoryError:
        raise
    except FAULTS as error:
        raise NetworkError(
            f"{model.name}: no gradient can be taken through the network ({first_line(error)}). "
            "Methods without one adapt it as it is: norm, diga, crf."
        ) from error


def gradients_of(loss: Tensor, model: Segmenter, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient by each of the network's parameters, zero for one that the loss does not depend on.

    Raises:
        NetworkError: where the network gives no gradient.
    """
    with gradient_through(model):
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }
