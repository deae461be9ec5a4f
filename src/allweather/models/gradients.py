"""Gradients through a user's network: what stops one is said in one line."""

from collections.abc import Mapping

import torch
from torch import Tensor

from allweather.errors import NetworkError, first_line
from allweather.models.segmenter import Segmenter
from allweather.plugins import FAULTS


def go_back(loss: Tensor, model: Segmenter, parameters: Mapping[str, Tensor]) -> None:
    """Adds the gradient by each of the network's parameters to its `grad`; memory that runs out is said as it is.

    Raises:
        NetworkError: where the network gives no gradient: layers that write over what one needs, a backward pass of its
            own that fails, an output that these parameters do not lead to.
    """
    try:
        with torch.autocast(loss.device.type, enabled=False):
            if loss.requires_grad:
                loss.backward()
    except torch.OutOfMemoryError:
        raise
    except FAULTS as error:
        raise NetworkError(
            f"{model.name}: no gradient can be taken through the network ({first_line(error)}). "
            "Methods without one adapt it as it is: norm, diga, crf."
        ) from error
    if all(parameter.grad is None for parameter in parameters.values()):
        names = ", ".join(list(parameters)[:2]) + (", …" if len(parameters) > 2 else "")
        raise NetworkError(
            f"{model.name}: no gradient reaches what moves, {names}: it does not lead to the output that is taken for "
            "the logits, or a layer behind it gives none, as quantized ones do. Move something else (parameters=all), "
            "take another output (output=), or choose a method without a gradient: norm, diga, crf."
        )


def gradients_of(loss: Tensor, model: Segmenter, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient by each of the network's parameters, zero for one that the loss does not depend on.

    It goes by way of `grad`, as reentrant checkpoints ask; what was there comes back.

    Raises:
        NetworkError: as of `go_back`.
    """
    kept = {name: parameter.grad for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    try:
        go_back(loss, model, parameters)
        return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}
    finally:
        for name, parameter in parameters.items():
            parameter.grad = kept[name]
