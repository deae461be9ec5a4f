"""CFPNet for Cityscapes: modules of four feature pyramids, each a chain of asymmetric convolutions of one dilation.

Written from Lou and Loew, CFPNet, ICIP 2021, in the form and with the parameter names of zh320's collection.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.nets.blocks.prelu import SharedPReLU, prelu_unit
from allweather.models.nets.blocks.realtime import CLASSES, DownUnit, enlarge, realtime_entry

STEM, QUARTER, EIGHTH = 32, 64, 128
WIDEST_DILATION = {QUARTER: (2, 2), EIGHTH: (4, 4, 8, 8, 16, 16)}  # of each module, by the stage's channels
PYRAMIDS = {2: (1, 1, 1, 2), 4: (1, 1, 2, 4), 8: (1, 2, 4, 8), 16: (1, 4, 8, 16)}  # dilations, by the widest


class FeaturePyramid(nn.Module):
    """Three pairs of convolutions in a row, their outputs side by side: B×C×H×W to the same."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.block1 = _asymmetric(channels, quarter, dilation)
        self.block2 = _asymmetric(quarter, quarter, dilation)
        self.block3 = _asymmetric(quarter, 2 * quarter, dilation)

    def forward(self, x: Tensor) -> Tensor:
        small = self.block1(x)
        middle = self.block2(small)
        return torch.cat([small, middle, self.block3(middle)], 1)


class CfpModule(nn.Module):
    """Four pyramids on a quarter of the channels each, and a residual: B×C×H×W to the same.

    Units follow the convolutions here; the authors' module begins with BatchNorm and PReLU and ends with a convolution.

    Args:
        dilations: of the pyramids, rising.
    """

    def __init__(self, channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        width = channels // len(dilations)
        self.conv_init = prelu_unit(channels, width)
        self.layers = nn.ModuleList(FeaturePyramid(width, dilation) for dilation in dilations)
        self.conv_last = prelu_unit(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv_init(x)
        sums = accumulate(pyramid(reduced) for pyramid in self.layers)  # against the gaps of wide dilations
        return x + self.conv_last(torch.cat(list(sums), 1))


class CfpNet(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 8, to logits B×19×H×W."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_init = nn.Sequential(
            prelu_unit(3, STEM, 3, stride=2), prelu_unit(STEM, STEM, 3), prelu_unit(STEM, STEM, 3)
        )
        self.downsample1 = DownUnit(STEM + 3, QUARTER, SharedPReLU)
        self.cfp1 = _stage(QUARTER)
        self.downsample2 = DownUnit(QUARTER + 3, EIGHTH, SharedPReLU)
        self.cfp2 = _stage(EIGHTH)
        self.seg_head = prelu_unit(EIGHTH + 3, CLASSES)  # the authors' logits have neither BatchNorm nor PReLU

    def forward(self, image: Tensor) -> Tensor:
        half = _with_image(self.conv_init(image), image)
        quarter = _with_image(self.cfp1(self.downsample1(half)), image)  # the authors' has downsample1's output too
        eighth = _with_image(self.cfp2(self.downsample2(quarter)), image)
        return enlarge(self.seg_head(eighth), image)


def _asymmetric(inputs: int, outputs: int, dilation: int) -> nn.Sequential:
    """A 3×1 and a 1×3 unit, not in groups as the authors' are."""
    return nn.Sequential(
        prelu_unit(inputs, outputs, (3, 1), dilation=dilation), prelu_unit(outputs, outputs, (1, 3), dilation=dilation)
    )


def _stage(channels: int) -> nn.Sequential:
    return nn.Sequential(*(CfpModule(channels, PYRAMIDS[widest]) for widest in WIDEST_DILATION[channels]))


def _with_image(features: Tensor, image: Tensor) -> Tensor:
    """B×C×h×w to B×(C + 3)×h×w: the image, resampled to the features' size, behind them."""
    resampled = functional.interpolate(image, features.shape[2:], mode="bilinear", align_corners=True)
    return torch.cat([features, resampled], 1)


ENTRIES = (realtime_entry("CFPNet", CfpNet, "Lou and Loew, CFPNet, ICIP 2021", size_multiple=8),)
