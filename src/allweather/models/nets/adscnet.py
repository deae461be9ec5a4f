"""ADSCNet for Cityscapes: asymmetric depth-wise separable convolutions around a densely connected, dilated context.

Written from Wang et al., ADSCNet, Applied Intelligence 2020, in the form and with the parameter names of zh320's
collection.
"""

import torch
from torch import Tensor, nn

from allweather.models.nets.blocks.conv import numbered_unit
from allweather.models.nets.blocks.realtime import CLASSES, UpUnit, realtime_entry

HALF, QUARTER, EIGHTH = 32, 64, 128
CONTEXT_SIZES = (3, 5, 9, 13)  # of the pooling window, and the dilation behind it


class Separable(nn.Module):
    """A 3×1 and a 1×3 depth-wise unit, each before a bare 1×1 convolution, added to the input: B×C×H×W to the same.

    At stride 2 the pooled input lies behind the result instead: B×2C×H/2×W/2.
    """

    def __init__(self, channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _depthwise(channels, (3, 1), dilation, stride),  # it strides over the width too, with a kernel one wide
            _pointwise(channels, channels),
            _depthwise(channels, (1, 3), dilation),
            _pointwise(channels, channels),
        )
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        convolved = self.conv(x)
        return x + convolved if self.pool is None else torch.cat([convolved, self.pool(x)], 1)


class DenseContext(nn.Module):
    """Four ever wider views, each of the input and all views before it, and their summary: B×C×H×W to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1, self.block2, self.block3, self.block4 = (
            _view(channels, joined, size) for joined, size in enumerate(CONTEXT_SIZES, 1)
        )
        self.conv_last = _pointwise((1 + len(CONTEXT_SIZES)) * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        for view in (self.block1, self.block2, self.block3, self.block4):
            x = torch.cat([x, view(x)], 1)
        return self.conv_last(x)


class AdscNet(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 8, to logits B×19×H×W, none of them negative."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = numbered_unit(3, HALF, 3, stride=2, activation=nn.ReLU6)
        self.conv1 = Separable(HALF)
        self.conv2_4 = nn.Sequential(Separable(HALF), Separable(HALF, stride=2), Separable(QUARTER))
        self.conv5 = Separable(QUARTER, stride=2)
        self.ddcc = DenseContext(EIGHTH)
        self.up1 = nn.Sequential(UpUnit(EIGHTH, QUARTER), Separable(QUARTER))
        self.up2 = nn.Sequential(Separable(QUARTER), UpUnit(QUARTER, HALF))
        self.up3 = nn.Sequential(Separable(HALF), UpUnit(HALF, CLASSES))  # BatchNorm and ReLU behind the logits too

    def forward(self, image: Tensor) -> Tensor:
        half = self.conv1(self.conv0(image))
        quarter = self.conv2_4(half)
        eighth = self.ddcc(self.conv5(quarter))
        return self.up3(half + self.up2(quarter + self.up1(eighth)))


def _depthwise(channels: int, kernel: tuple[int, int], dilation: int, stride: int = 1) -> nn.Sequential:
    return numbered_unit(
        channels, channels, kernel, stride=stride, dilation=dilation, groups=channels, activation=nn.ReLU6
    )


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def _view(channels: int, joined: int, size: int) -> nn.Sequential:
    """B×(joined·C)×H×W to B×C×H×W: reduced where more than one is joined, averaged, then convolved with dilation."""
    reduction = [_pointwise(joined * channels, channels)] if joined > 1 else []
    return nn.Sequential(*reduction, nn.AvgPool2d(size, 1, size // 2), Separable(channels, dilation=size))


ENTRIES = (realtime_entry("ADSCNet", AdscNet, "Wang et al., ADSCNet, Applied Intelligence 2020", size_multiple=8),)
