"""MiniNet-v2 for Cityscapes: depth-wise separable convolutions, every second one deep down of two dilations.

Written from Alonso et al., MiniNet-v2, TRO 2020, in the form and with the parameter names of zh320's collection.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from allweather.models.nets.blocks.conv import numbered_unit
from allweather.models.nets.blocks.realtime import CLASSES, DownUnit, UpUnit, enlarge, realtime_entry

HALF, QUARTER, EIGHTH = 16, 64, 128
QUARTER_BLOCKS, DECODER_BLOCKS = 10, 4
EIGHTH_DILATIONS = (1, 2, 1, 4, 1, 8, 1, 16, 1, 1, 1, 2, 1, 4, 1, 8)


class MultiDilation(nn.Module):
    """A depth-wise 3×3 unit, beside it one dilated where `dilation` is not 1, then a 1×1 unit: B×C×H×W to the same."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dw_conv = numbered_unit(channels, channels, 3, groups=channels)
        self.ddw_conv = (
            numbered_unit(channels, channels, 3, dilation=dilation, groups=channels) if dilation > 1 else None
        )
        self.pw_conv = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        near = self.dw_conv(x)
        # nothing is added to the result, unlike in the authors' blocks, which are residual
        return self.pw_conv(near if self.ddw_conv is None else near + self.ddw_conv(x))


class MiniNetV2(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 8, to logits B×19×H×W, none of them negative."""

    def __init__(self) -> None:
        super().__init__()
        self.d1_2 = _quartering()
        self.ref = _quartering()
        self.m1_10 = _blocks(QUARTER, [1] * QUARTER_BLOCKS)
        self.d3 = DownUnit(QUARTER, EIGHTH)
        self.feature_extractor = _blocks(EIGHTH, EIGHTH_DILATIONS)
        self.up1 = UpUnit(EIGHTH, QUARTER)
        self.m26_29 = _blocks(QUARTER, [1] * DECODER_BLOCKS)
        self.output = UpUnit(QUARTER, CLASSES)  # BatchNorm and ReLU behind the logits, unlike the authors'

    def forward(self, image: Tensor) -> Tensor:
        eighth = self.feature_extractor(self.d3(self.m1_10(self.d1_2(image))))
        quarter = self.m26_29(self.up1(eighth) + self.ref(image))
        return enlarge(self.output(quarter), image)


def _quartering() -> nn.Sequential:
    """Image B×3×H×W to B×64×H/4×W/4."""
    return nn.Sequential(DownUnit(3, HALF), DownUnit(HALF, QUARTER))


def _blocks(channels: int, dilations: Iterable[int]) -> nn.Sequential:
    return nn.Sequential(*(MultiDilation(channels, dilation) for dilation in dilations))


ENTRIES = (realtime_entry("MiniNetv2", MiniNetV2, "Alonso et al., MiniNet-v2, TRO 2020", size_multiple=8),)
