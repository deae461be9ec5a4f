"""Gradients through a user's network: what stops one is said in one line."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from allweather.errors import NetworkError, first_line
from allweather.models.segmenter import Segmenter
from allweather.plugins import FAULTS


def go_back(loss: Tensor, model: Segmenter, parameters: Mapping[str, Tensor]) -> None:
    """Adds the gradient by each of the network's parameters to its `grad`.

    Raises:
        NetworkError: where the network gives no gradient: layers that write over what one needs, a backward pass of its
            own that fails, an output that these parameters do not lead to.
    """

    def take() -> list[Tensor | None]:
        loss.backward()
        return [parameter.grad for parameter in parameters.values()]

    _taken(take, loss, model, parameters)


def gradients_of(loss: Tensor, model: Segmenter, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient by each of the network's parameters, zero for one that the loss does not depend on.

    Raises:
        NetworkError: as of `go_back`.
    """
    moved = list(parameters.values())
    found = _taken(lambda: torch.autograd.grad(loss, moved, allow_unused=True), loss, model, parameters)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


def _taken(
    take: Callable[[], Sequence[Tensor | None]], loss: Tensor, model: Segmenter, parameters: Mapping[str, Tensor]
) -> Sequence[Tensor | None]:
    """What `take` gives, a gradient for some parameter; memory that runs out goes on its way."""
    try:
        found = take() if loss.requires_grad else []
    except torch.OutOfMemoryError:
        raise
    except FAULTS as error:
        raise NetworkError(
            f"{model.name}: no gradient can be taken through the network ({first_line(error)}). "
            "Methods without one adapt it as it is: norm, diga, crf."
        ) from error
    if all(gradient is None for gradient in found):
        names = ", ".join(list(parameters)[:2]) + (", …" if len(parameters) > 2 else "")
        raise NetworkError(
            f"{model.name}: no gradient reaches what moves, {names}: it does not lead to the output that is taken for "
            "the logits, or a layer behind it gives none, as quantized ones do. Move something else (parameters=all), "
            "take another output (output=), or choose a method without a gradient: norm, diga, crf."
        )
    return found
