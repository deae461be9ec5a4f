"""FPENet for Cityscapes: pyramids of depth-wise dilated convolutions, decoded by attention across two resolutions.

Written from Liu and Yin, FPENet, BMVC 2019, in the form and with the parameter names of zh320's collection.
"""

from collections import OrderedDict
from itertools import accumulate

import torch
from torch import Tensor, nn

from allweather.models.nets.blocks.conv import numbered_unit
from allweather.models.nets.blocks.realtime import CLASSES, enlarge, realtime_entry

HALF, QUARTER, EIGHTH = 16, 32, 64
QUARTER_BLOCKS, EIGHTH_BLOCKS = 2, 8  # after those that halve the resolution
EXPANSION = 4
DILATIONS = (1, 2, 4, 8)


class PyramidEncoder(nn.Module):
    """A feature pyramid encoding block: B×inputs×H×W to B×outputs×H/stride×W/stride.

    Args:
        expansion: the channels between the 1×1 units, in multiples of `outputs`.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int = EXPANSION, stride: int = 1) -> None:
        super().__init__()
        inner = expansion * outputs
        width = inner // len(DILATIONS)
        self.conv_init = numbered_unit(inputs, inner)
        self.layers = nn.ModuleList(
            numbered_unit(width, width, 3, stride=stride, dilation=dilation, groups=width) for dilation in DILATIONS
        )
        self.conv_last = numbered_unit(inner, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        parts = self.conv_init(x).chunk(len(DILATIONS), 1)
        # A branch's output is added to the next one's output, not to its input as in the paper.
        sums = accumulate(branch(part) for branch, part in zip(self.layers, parts, strict=True))
        encoded = self.conv_last(torch.cat(list(sums), 1))
        return encoded + x if self.residual else encoded


class MutualEmbedding(nn.Module):
    """Low B×low×2H×2W weighted by channel, and high B×high×H×W by position, to their sum B×outputs×2H×2W.

    The weights of each come from the other, through ReLU: they are not bounded by a sigmoid as in the paper.
    """

    def __init__(self, low: int, high: int, outputs: int) -> None:
        super().__init__()
        self.conv_low = numbered_unit(low, outputs)
        self.conv_high = numbered_unit(high, outputs)
        self.sa = nn.Sequential(OrderedDict(conv=numbered_unit(1, 1)))
        self.ca = nn.Sequential(nn.AdaptiveAvgPool2d(1), numbered_unit(outputs, outputs))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        low, high = self.conv_low(low), self.conv_high(high)
        by_position = self.sa(low.mean(1, keepdim=True))  # B×1×2H×2W
        by_channel = self.ca(high)  # B×outputs×1×1
        return low * by_channel + enlarge(high, low) * by_position


class FpeNet(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 8, to logits B×19×H×W."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(numbered_unit(3, HALF, 3, stride=2), PyramidEncoder(HALF, HALF, expansion=1))
        self.stage2_0 = PyramidEncoder(HALF, QUARTER, stride=2)
        self.stage2 = _stage(QUARTER, QUARTER_BLOCKS)
        self.stage3_0 = PyramidEncoder(QUARTER, EIGHTH, stride=2)
        self.stage3 = _stage(EIGHTH, EIGHTH_BLOCKS)
        self.decoder2 = MutualEmbedding(QUARTER, EIGHTH, 64)
        self.decoder1 = MutualEmbedding(HALF, 64, 32)
        self.final = numbered_unit(32, CLASSES)  # BatchNorm and ReLU too: no logit is below 0

    def forward(self, image: Tensor) -> Tensor:
        half = self.stage1(image)
        quarter = self.stage2(self.stage2_0(half))
        eighth = self.stage3(self.stage3_0(quarter))
        decoded = self.decoder1(half, self.decoder2(quarter, eighth))
        return enlarge(self.final(decoded), image)


def _stage(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(PyramidEncoder(channels, channels) for _ in range(blocks)))


ENTRIES = (realtime_entry("FPENet", FpeNet, "Liu and Yin, FPENet, BMVC 2019", size_multiple=8),)
