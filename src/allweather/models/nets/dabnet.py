"""DABNet for Cityscapes: depth-wise asymmetric bottlenecks, one branch of each dilated.

Written from Li et al., DABNet, BMVC 2019, in the form and with the parameter names of zh320's collection.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.nets.blocks.prelu import SharedPReLU, prelu_unit
from allweather.models.nets.blocks.realtime import DownUnit, classifier, enlarge, realtime_entry

STEM, QUARTER, EIGHTH = 32, 64, 128


class Bottleneck(nn.Module):
    """A depth-wise asymmetric bottleneck: B×C×H×W to the same.

    Args:
        dilation: of the right branch.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.init_conv = prelu_unit(channels, channels // 2, 3)
        self.left_branch = _asymmetric(channels // 2)
        self.right_branch = _asymmetric(channels // 2, dilation)
        self.last_conv = prelu_unit(channels // 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.init_conv(x)
        return x + self.last_conv(self.left_branch(reduced) + self.right_branch(reduced))


class DabNet(nn.Module):
    """RGB B×3×H×W, normalised, to logits B×19×H×W."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = prelu_unit(3, STEM, 3, stride=2)
        self.layer2 = prelu_unit(STEM, STEM, 3)
        self.layer3 = prelu_unit(STEM, STEM, 3)
        self.layer4 = DownUnit(STEM + 3, QUARTER, SharedPReLU)
        self.layer5_7 = _bottlenecks(QUARTER, 3, dilation=2)
        self.layer8 = prelu_unit(2 * QUARTER + 3, EIGHTH, 3, stride=2)
        self.layer9_10 = _bottlenecks(EIGHTH, 2, dilation=4)
        self.layer11_12 = _bottlenecks(EIGHTH, 2, dilation=8)
        self.layer13_14 = _bottlenecks(EIGHTH, 2, dilation=16)
        self.layer15 = classifier(2 * EIGHTH + 3)

    def forward(self, image: Tensor) -> Tensor:
        half_image = _halved(image)
        quarter_image = _halved(half_image)
        half = self.layer3(self.layer2(self.layer1(image)))
        start = self.layer4(torch.cat([half, half_image], 1))
        quarter = torch.cat([self.layer5_7(start), start, quarter_image], 1)
        start = self.layer8(quarter)
        eighth = self.layer13_14(self.layer11_12(self.layer9_10(start)))
        return enlarge(self.layer15(torch.cat([eighth, start, _halved(quarter_image)], 1)), image)


def _asymmetric(channels: int, dilation: int = 1) -> nn.Sequential:
    """Depth-wise 3×1 and 1×3 units."""
    return nn.Sequential(
        *(prelu_unit(channels, channels, kernel, dilation=dilation, groups=channels) for kernel in ((3, 1), (1, 3)))
    )


def _bottlenecks(channels: int, count: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(channels, dilation) for _ in range(count)))


def _halved(image: Tensor) -> Tensor:
    return functional.avg_pool2d(image, 3, 2, 1)


ENTRIES = (realtime_entry("DABNet", DabNet, "Li et al., DABNet, BMVC 2019", size_multiple=1),)
