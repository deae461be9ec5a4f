"""What tests of layers that a session computes at less cost share."""

import torch
from torch import Tensor, nn


def gradients(layer: nn.Module, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Output, and the gradients of the input and of the weights under uneven weights."""
    values = values.detach().clone().requires_grad_()
    output = layer(values)
    (output.float() * torch.linspace(-1, 2, output.numel()).view_as(output)).sum().backward()
    assert values.grad is not None
    return output.detach(), values.grad, layer.weight.grad
