"""FDDWNet for Cityscapes: residual units of factorised, dilated depth-wise convolutions.

Written from Liu et al., FDDWNet, ICASSP 2020, in the form and with the parameter names of zh320's collection.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from allweather.models.nets.blocks.conv import numbered_unit
from allweather.models.nets.blocks.realtime import CLASSES, DownUnit, UpUnit, realtime_entry

HALF, QUARTER, EIGHTH = 16, 64, 128
EIGHTH_DILATIONS = (1, 2, 5, 9) * 2
WIDE_DILATIONS = (2, 5, 9, 17) * 2


class Residual(nn.Module):
    """Two factorised separable convolutions added to their input: B×C×H×W to the same.

    Args:
        dilation: of the second one.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *_factorised(channels, 1),
            numbered_unit(channels, channels),
            *_factorised(channels, dilation),
            numbered_unit(channels, channels, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.conv(x)).relu()


class FddwNet(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 8, to logits B×19×H×W, none of them negative."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = DownUnit(3, HALF)
        self.layer2 = DownUnit(HALF, QUARTER)
        self.layer3_7 = _residuals(QUARTER, [1] * 5)
        self.layer8 = DownUnit(QUARTER, EIGHTH)
        self.layer9_16 = _residuals(EIGHTH, EIGHTH_DILATIONS)
        self.layer17_24 = _residuals(EIGHTH, WIDE_DILATIONS)
        self.layer25 = UpUnit(EIGHTH, QUARTER)
        self.layer26_27 = _residuals(QUARTER, [1] * 2)
        self.layer28 = UpUnit(QUARTER, HALF)
        self.layer29_30 = _residuals(HALF, [1] * 2)
        self.layer31 = UpUnit(HALF, CLASSES)  # BatchNorm and ReLU behind the logits, unlike the authors'

    def forward(self, image: Tensor) -> Tensor:
        quarter = self.layer3_7(self.layer2(self.layer1(image)))
        eighth = self.layer17_24(self.layer9_16(self.layer8(quarter)))
        # one bare skip; the authors have residual units in theirs, and a second one at half resolution
        decoded = quarter + self.layer26_27(self.layer25(eighth))
        return self.layer31(self.layer29_30(self.layer28(decoded)))


def _factorised(channels: int, dilation: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Depth-wise 3×1 and 1×3 convolutions, each with BatchNorm and no activation."""
    tall, wide = (
        numbered_unit(channels, channels, kernel, dilation=dilation, groups=channels, activation=None)
        for kernel in ((3, 1), (1, 3))
    )
    return tall, wide


def _residuals(channels: int, dilations: Iterable[int]) -> nn.Sequential:
    return nn.Sequential(*(Residual(channels, dilation) for dilation in dilations))


ENTRIES = (realtime_entry("FDDWNet", FddwNet, "Liu et al., FDDWNet, ICASSP 2020", size_multiple=8),)
