"""CGNet for Cityscapes: local and surrounding context joined, then weighted by the context of the whole image.

Written from Wu et al., CGNet, TIP 2020, in the form and with the parameter names of zh320's collection.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.nets.blocks.prelu import SharedPReLU, prelu_unit
from allweather.models.nets.blocks.realtime import classifier, enlarge, realtime_entry

STEM, MIDDLE, DEEP = 32, 64, 128
MIDDLE_BLOCKS, DEEP_BLOCKS = 2, 14  # at 1/4 and at 1/8, after those that halve the resolution
REDUCTION = 8


class Stem(nn.Module):
    """Image B×3×H×W to B×64×H/2×W/2: three convolutions, the last one's output beside the first one's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = prelu_unit(3, STEM, 3, stride=2)
        self.conv1 = prelu_unit(STEM, STEM, 3)
        self.conv2 = prelu_unit(STEM, STEM, 3)

    def forward(self, image: Tensor) -> Tensor:
        first = self.conv0(image)
        return torch.cat([self.conv2(self.conv1(first)), first], 1)


class ContextGuided(nn.Module):
    """A context guided block: B×inputs×H×W to B×outputs×H/stride×W/stride.

    Args:
        dilation: of the depth-wise convolution that sees the surroundings.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int, stride: int = 1) -> None:
        super().__init__()
        half = outputs // 2
        self.conv = nn.Conv2d(inputs, half, 1, bias=False)
        self.loc = nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False)
        self.sur = nn.Conv2d(half, half, 3, stride, dilation, dilation, half, bias=False)
        self.joi = nn.Sequential(nn.BatchNorm2d(outputs), SharedPReLU())
        self.glo = nn.Sequential(  # no activation between the two, unlike the paper
            nn.Linear(outputs, outputs // REDUCTION), nn.Linear(outputs // REDUCTION, outputs)
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv(x)
        joined = self.joi(torch.cat([self.loc(reduced), self.sur(reduced)], 1))
        gated = joined * self.glo(joined.mean((2, 3))).sigmoid()[..., None, None]
        return gated + x if self.residual else gated


class CgNet(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 8, to logits B×19×H×W."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = Stem()
        self.stage2_down = ContextGuided(2 * STEM, MIDDLE, dilation=2, stride=2)
        self.stage2 = _stage(MIDDLE, MIDDLE_BLOCKS, dilation=2)
        self.stage3_down = ContextGuided(2 * MIDDLE, DEEP, dilation=4, stride=2)
        self.stage3 = _stage(DEEP, DEEP_BLOCKS, dilation=4)
        self.seg_head = classifier(2 * DEEP)

    def forward(self, image: Tensor) -> Tensor:
        start = self.stage2_down(self.stage1(image))
        quarter = self.stage2(torch.cat([start, _reduced(image, 4)], 1))
        start = self.stage3_down(torch.cat([quarter, start], 1))
        eighth = self.stage3(torch.cat([start, _reduced(image, 8)], 1))
        return enlarge(self.seg_head(torch.cat([eighth, start], 1)), image)


def _stage(channels: int, blocks: int, dilation: int) -> nn.Sequential:
    """Blocks at one resolution; the first sees the image beside the features."""
    return nn.Sequential(*(ContextGuided(channels if i else channels + 3, channels, dilation) for i in range(blocks)))


def _reduced(image: Tensor, factor: int) -> Tensor:
    return functional.interpolate(image, scale_factor=1 / factor, mode="bilinear", align_corners=True)


ENTRIES = (realtime_entry("CGNet", CgNet, "Wu et al., CGNet, TIP 2020", size_multiple=8),)
