"""EDANet for Cityscapes: densely connected modules of asymmetric dilated convolutions.

Written from Lo et al., EDANet, MMAsia 2019, in the form and with the parameter names of zh320's collection.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from allweather.models.nets.blocks.conv import keeping, numbered_unit
from allweather.models.nets.blocks.realtime import classifier, enlarge, realtime_entry

GROWTH = 40
STEM, QUARTER, EIGHTH = 15, 60, 130
QUARTER_DILATIONS = (1, 1, 1, 2, 2)
EIGHTH_DILATIONS = (2, 2, 4, 4, 8, 8, 16, 16)


class Downsampler(nn.Module):
    """A strided convolution beside a max pooling: B×inputs×H×W, H and W even, to B×outputs×H/2×W/2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, 3, 2, 1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.bn_act = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.bn_act(torch.cat([self.conv(x), self.pool(x)], 1))


class EdaModule(nn.Module):
    """40 new channels ahead of the input's: B×inputs×H×W to B×(40 + inputs)×H×W.

    Args:
        dilation: of the second asymmetric pair.
    """

    def __init__(self, inputs: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(numbered_unit(inputs, GROWTH), *_asymmetric(1), *_asymmetric(dilation))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), x], 1)


def _asymmetric(dilation: int) -> tuple[nn.Module, nn.Module]:
    """A 3×1 convolution and a 1×3 unit."""
    tall = nn.Conv2d(GROWTH, GROWTH, (3, 1), padding=keeping((3, 1), dilation), dilation=(dilation, 1), bias=False)
    return tall, numbered_unit(GROWTH, GROWTH, (1, 3), dilation=dilation)


class EdaNet(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 4, to logits B×19×H×W."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = Downsampler(3, STEM)
        self.stage2_d = Downsampler(STEM, QUARTER)
        self.stage2 = _stage(QUARTER, QUARTER_DILATIONS)
        self.stage3_d = numbered_unit(QUARTER + GROWTH * len(QUARTER_DILATIONS), EIGHTH, 3, stride=2)
        self.stage3 = _stage(EIGHTH, EIGHTH_DILATIONS)
        self.project = classifier(EIGHTH + GROWTH * len(EIGHTH_DILATIONS))

    def forward(self, image: Tensor) -> Tensor:
        quarter = self.stage2(self.stage2_d(self.stage1(image)))
        return enlarge(self.project(self.stage3(self.stage3_d(quarter))), image)


def _stage(inputs: int, dilations: Sequence[int]) -> nn.Sequential:
    """Modules at one resolution, under `layers`."""
    modules = (EdaModule(inputs + GROWTH * i, dilation) for i, dilation in enumerate(dilations))
    return nn.Sequential(OrderedDict(layers=nn.Sequential(*modules)))


ENTRIES = (realtime_entry("EDANet", EdaNet, "Lo et al., EDANet, MMAsia 2019", size_multiple=4),)
