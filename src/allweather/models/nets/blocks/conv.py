"""Convolution, BatchNorm and activation: under mmseg's parameter names, numbered as torchvision does, or separable."""

from collections import OrderedDict
from typing import Any

from torch import nn


class ConvUnit(nn.Sequential):
    """Convolution without bias, BatchNorm and an activation, under `conv` and `bn`.

    Args:
        kernel: one size, or height and width.
        padding: None keeps the size at stride 1.
        activation: None leaves it out.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding: int | None = None,
        activation: type[nn.Module] | None = nn.ReLU,
        eps: float = 1e-5,
    ) -> None:
        margins = keeping(kernel, dilation) if padding is None else padding
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, stride, margins, dilation, groups, bias=False),
            bn=nn.BatchNorm2d(outputs, eps),
        )
        if activation is not None:
            layers["activate"] = activation()
        super().__init__(layers)


def keeping(kernel: int | tuple[int, int], dilation: int = 1) -> tuple[int, int]:
    """The padding, of height and width, with which an odd kernel keeps the size at stride 1."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return height // 2 * dilation, width // 2 * dilation


def numbered_unit(inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, **options: Any) -> nn.Sequential:
    """`ConvUnit` with its options, the parameters under `0` and `1`."""
    return nn.Sequential(*ConvUnit(inputs, outputs, kernel, **options))


class SeparableUnit(nn.Sequential):
    """A depth-wise 3×3 unit and a 1×1 unit, under `depthwise_conv` and `pointwise_conv`."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        depthwise = ConvUnit(inputs, inputs, 3, dilation=dilation, groups=inputs)
        super().__init__(OrderedDict(depthwise_conv=depthwise, pointwise_conv=ConvUnit(inputs, outputs)))
