"""Grouped convolutions whose weights stand still: the gradient of their input as a convolution forwards."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class QuietConv2d(nn.Conv2d):
    """What a grouped Conv2d layer becomes in a session's copy.

    On the CPU PyTorch's backward pass of grouped convolutions is four to twelve times as slow as the layer itself where
    they are dilated or a group has several channels. The same numbers come from the weights turned by half a circle,
    as a convolution forwards.
    """

    def forward(self, input: Tensor) -> Tensor:
        if (
            self.weight.requires_grad
            or not (input.requires_grad and torch.is_grad_enabled())
            or not _turns(self, input)
        ):
            return super().forward(input)
        geometry = (self.stride, cast(tuple[int, ...], self.padding), self.dilation, self.groups)
        return cast(Tensor, _OfInput.apply(input, self.weight, self.bias, geometry))


def _turns(layer: nn.Conv2d, input: Tensor) -> bool:
    """Whether the gradient of this input can be had forwards, and sooner."""
    if input.device.type != "cpu" or input.ndim != 4 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return False
    if layer.bias is not None and layer.bias.requires_grad:
        return False
    strided = any(step > 1 for step in layer.stride)
    if strided and not any(apart > 1 for apart in layer.dilation):
        return False  # zeros between the numbers cost more than they save
    reach = ((size - 1) * apart for size, apart in zip(layer.kernel_size, layer.dilation, strict=True))
    return all(side >= padded for side, padded in zip(reach, layer.padding, strict=True))


class _OfInput(torch.autograd.Function):
    """A convolution with the gradient of its input alone; `geometry` is stride, padding, dilation and groups."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.geometry = input.shape[2:], geometry
        stride, padding, dilation, groups = geometry
        return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        outputs, inputs, *kernel = weight.shape  # inputs of a group
        # O×I×h×w as G·I×(O/G)×h×w, turned
        turned = weight.view(groups, outputs // groups, inputs, *kernel).transpose(1, 2).flatten(0, 1).flip(2, 3)
        reach = [(size - 1) * apart for size, apart in zip(kernel, dilation, strict=True)]
        if max(stride) > 1:
            sides = [side + 2 * pad - far for side, pad, far in zip(ctx.size, padding, reach, strict=True)]
            apart = gradient.new_zeros(*gradient.shape[:2], *sides)
            apart[:, :, :: stride[0], :: stride[1]] = gradient
            gradient = apart
        around = [far - pad for far, pad in zip(reach, padding, strict=True)]
        found = functional.conv2d(gradient, turned.to(gradient.dtype), None, 1, around, dilation, groups)
        return found, None, None, None
