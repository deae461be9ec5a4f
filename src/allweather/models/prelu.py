"""PReLU whose slopes stand still: the same values and gradients, without computing a gradient that nobody takes."""

from typing import Any, cast

import torch
from torch import Tensor, nn


class QuietPReLU(nn.PReLU):
    """What a PReLU layer becomes in a session's copy.

    PyTorch's backward pass makes the slopes' gradient, one number per pixel, even where they do not move; on the CPU
    it takes five to ten times as long as the input's alone.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.weight.requires_grad or not (input.requires_grad and torch.is_grad_enabled()):
            return super().forward(input)
        return cast(Tensor, _OfInput.apply(input, self.weight))


class _OfInput(torch.autograd.Function):
    """PReLU with the gradient of its input alone."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        return torch.prelu(input, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        input, weight = ctx.saved_tensors
        slope = weight.view(1, -1, *(1,) * (input.ndim - 2)) if input.ndim > 1 else weight
        above = torch.ops.aten.threshold_backward(gradient, input, 0)  # vectorised, unlike torch.where
        return (gradient - above).mul_(slope).add_(above), None
