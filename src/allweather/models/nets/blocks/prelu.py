"""PReLU with BatchNorm, alone or after a convolution (ESPNet family), and PReLU with one slope for all channels."""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from allweather.models.nets.blocks.conv import ConvUnit, numbered_unit


class NormAct(nn.Sequential):
    """BatchNorm and PReLU, under `bn` and `act`."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(OrderedDict(bn=nn.BatchNorm2d(channels, eps), act=nn.PReLU(channels)))


class ConvNormAct(ConvUnit):
    """Convolution without bias, BatchNorm and PReLU, under `conv`, `bn` and `act`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, eps: float = 1e-5
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, activation=None, eps=eps)
        self.act = nn.PReLU(outputs)


class SharedPReLU(nn.Module):
    """PReLU with one slope for all channels, under `activation`."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x)


def prelu_unit(inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, **options: Any) -> nn.Sequential:
    """`numbered_unit` with its options and that PReLU."""
    return numbered_unit(inputs, outputs, kernel, activation=SharedPReLU, **options)
