"""FSSNet for Cityscapes: factorized bottlenecks, then dilated ones, and a decoder that adds the pooled features again.

Written from Zhang et al., FSSNet, TII 2019, in the form and with the parameter names of zh320's collection.
"""

from torch import Tensor, nn
from torch.nn import functional

from allweather.models.nets.blocks.conv import numbered_unit
from allweather.models.nets.blocks.prelu import SharedPReLU, prelu_unit
from allweather.models.nets.blocks.realtime import CLASSES, DownUnit, UpUnit, realtime_entry

HALF, QUARTER, EIGHTH = 16, 64, 128
FACTORIZED = 4
DILATIONS = (2, 5, 9, 2, 5, 9)
DECODER_DILATIONS = (1, 1)
REDUCTION = 4


class Bottleneck(nn.Module):
    """A residual bottleneck: B×C×H×W to the same.

    Args:
        dilation: of the 3×3 convolution; None has a 1×3 and a 3×1 in its place, no activation between the two.
    """

    def __init__(self, channels: int, dilation: int | None) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        if dilation is None:
            middle = [_linear(hidden, hidden, (1, 3)), prelu_unit(hidden, hidden, (3, 1))]
        else:
            middle = [prelu_unit(hidden, hidden, 3, dilation=dilation)]
        self.conv = nn.Sequential(prelu_unit(channels, hidden), *middle, _linear(hidden, channels))
        self.act = SharedPReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.conv(x))


class Pooling(nn.Module):
    """A strided convolution on top of a max pooling: B×inputs×H×W, H and W even, to B×outputs×H/2×W/2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = outputs // REDUCTION
        halving = prelu_unit(inputs, hidden, 2, stride=2, padding=0)
        self.conv = nn.Sequential(halving, prelu_unit(hidden, hidden, 3), _linear(hidden, outputs))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 2, 1), _linear(inputs, outputs))
        self.act = SharedPReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x) + self.pool(x))


class Enlarging(nn.Module):
    """B×inputs×H×W, and the features of that shape which `Pooling` gave, to B×outputs×2H×2W."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs // REDUCTION
        doubling = UpUnit(hidden, hidden, SharedPReLU)
        self.deconv = nn.Sequential(prelu_unit(inputs, hidden), doubling, _linear(hidden, outputs))
        self.conv = _linear(inputs, outputs)
        self.act = SharedPReLU()

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        main = functional.interpolate(self.conv(x + pooled), scale_factor=2, mode="bilinear", align_corners=True)
        return self.act(main + self.deconv(x))


class FssNet(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 8, to logits B×19×H×W."""

    def __init__(self) -> None:
        super().__init__()
        self.init_block = DownUnit(3, HALF, SharedPReLU)
        self.down1 = Pooling(HALF, QUARTER)
        self.factorized = _bottlenecks(QUARTER, *(None,) * FACTORIZED)
        self.down2 = Pooling(QUARTER, EIGHTH)
        self.dilated = _bottlenecks(EIGHTH, *DILATIONS)
        self.up2 = Enlarging(EIGHTH, QUARTER)
        self.bottleneck2 = _bottlenecks(QUARTER, *DECODER_DILATIONS)
        self.up1 = Enlarging(QUARTER, HALF)
        self.bottleneck1 = _bottlenecks(HALF, *DECODER_DILATIONS)
        self.full_conv = UpUnit(HALF, CLASSES, SharedPReLU)  # the logits too are normalised and activated

    def forward(self, image: Tensor) -> Tensor:
        quarter = self.down1(self.init_block(image))
        eighth = self.down2(self.factorized(quarter))
        x = self.bottleneck2(self.up2(self.dilated(eighth), eighth))
        return self.full_conv(self.bottleneck1(self.up1(x, quarter)))


def _linear(inputs: int, outputs: int, kernel: int | tuple[int, int] = 1) -> nn.Sequential:
    """A unit without activation."""
    return numbered_unit(inputs, outputs, kernel, activation=None)


def _bottlenecks(channels: int, *dilations: int | None) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(channels, dilation) for dilation in dilations))


ENTRIES = (realtime_entry("FSSNet", FssNet, "Zhang et al., FSSNet, TII 2019", size_multiple=8),)
