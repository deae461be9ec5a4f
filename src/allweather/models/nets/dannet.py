"""DANNet: PSPNet, RefineNet or DeepLabv2 behind LightNet, which relights the image; logits weighted by class rarity.

Written from Wu et al., DANNet, CVPR 2021, with the parameter names of the authors' project.
"""

from functools import partial
from math import log
from statistics import fmean, stdev

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.entry import Entry
from allweather.models.nets.blocks.refinenet import RefineNet
from allweather.models.nets.blocks.resnet import STAGE_CHANNELS, ResNet
from allweather.models.nets.deeplabv2 import DeepLabV2
from allweather.models.segmenter import AdaptationFacts, Preprocessing

CLASSES = 19
WIDTH = 512
SCALES = (1, 2, 3, 6)
SPREAD = 0.16  # standard deviation of the class weights
FREQUENCIES = (  # share of each class among Cityscapes' training pixels, in trainId order
    0.36869696, 0.06084986, 0.22824049, 0.00655399, 0.00877272, 0.01227341, 0.00207795, 0.0055127, 0.15928651,
    0.01157818, 0.04018982, 0.01218957, 0.00135122, 0.06994545, 0.00267456, 0.00235192, 0.00232904, 0.00098658,
    0.00413907,
)  # fmt: skip


class PyramidPooling(nn.Module):
    """Features beside their averages over four grids, joined by a 3×3 convolution."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), nn.Conv2d(inputs, WIDTH, 1, bias=False)) for scale in SCALES
        )
        joined = nn.Conv2d(inputs + len(SCALES) * WIDTH, WIDTH, 3, padding=1, bias=False)
        self.bottleneck = nn.Sequential(joined, nn.BatchNorm2d(WIDTH), nn.Dropout2d(0.1))

    def forward(self, x: Tensor) -> Tensor:
        pooled = (
            functional.interpolate(stage(x), x.shape[2:], mode="bilinear", align_corners=True) for stage in self.stages
        )
        joined: Tensor = self.bottleneck(torch.cat([*pooled, x], 1))
        return joined


class PspNet(ResNet):
    """Image B×3×H×W to logits B×19×(H/8+1)×(W/8+1); `dsn` is for training and not run."""

    def __init__(self) -> None:
        super().__init__(101, output_stride=8, stem="deep", stem_width=128, ceil_pool=True, dilate_first=True)
        self.head = nn.Sequential(PyramidPooling(STAGE_CHANNELS[3]), nn.Conv2d(WIDTH, CLASSES, 1))
        self.dsn = nn.Sequential(
            nn.Conv2d(STAGE_CHANNELS[2], WIDTH, 3, padding=1),
            nn.BatchNorm2d(WIDTH),
            nn.Dropout2d(0.1),
            nn.Conv2d(WIDTH, CLASSES, 1),
        )

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = self.head(self.stages(image)[-1])
        return logits


class MirroredBlock(nn.Module):
    """A residual block of two convolutions with reflected borders: B×C×h×w to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(*_mirrored(channels), nn.ReLU(), *_mirrored(channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_block(x)
        return x + y


class LightNet(nn.Module):
    """Normalised image B×3×H×W to what is added to it, in (−1, 1); H and W are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, 64, 7, bias=False),
            *_norm_relu(64),
            nn.Conv2d(64, 128, 3, 2, 1, bias=False),
            *_norm_relu(128),
            nn.Conv2d(128, 256, 3, 2, 1, bias=False),
            *_norm_relu(256),
            *(MirroredBlock(256) for _ in range(3)),
            nn.ConvTranspose2d(256, 128, 3, 2, 1, 1, bias=False),
            *_norm_relu(128),
            nn.ConvTranspose2d(128, 64, 3, 2, 1, 1, bias=False),
            *_norm_relu(64),
            nn.ReflectionPad2d(3),
            nn.Conv2d(64, 3, 7),
            nn.Tanh(),
        )

    def forward(self, image: Tensor) -> Tensor:
        light: Tensor = self.model(image)
        return light


def _mirrored(channels: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=False), nn.BatchNorm2d(channels)]


def _norm_relu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


def _refinenet() -> RefineNet:
    return RefineNet(CLASSES, ResNet(101))


def class_weights() -> tuple[float, ...]:
    """Factors of the logits: logarithms of the classes' shares, standardised to mean 1 and deviation `SPREAD`."""
    logarithms = [log(share) for share in FREQUENCIES]
    mean, deviation = fmean(logarithms), stdev(logarithms)
    return tuple(1 + SPREAD * (mean - logarithm) / deviation for logarithm in logarithms)


_entry = partial(
    Entry,
    source="Wu et al., DANNet, CVPR 2021; github.com/W-zx-Y/DANNet",
    licence="Apache-2.0",
    publisher="github.com/W-zx-Y/DANNet, links in its README",
    size=(960, 540),
    preprocessing=Preprocessing(align_corners=True, size_multiple=4, logit_weights=class_weights()),
)
ENTRIES = (
    _entry(
        name="dannet:pspnet",
        family="PSPNet",
        build=PspNet,
        file="dannet_psp.pth",
        enhancer="dannet:lightnet",
        fixture="dannet/pspnet",
    ),
    _entry(
        name="dannet:refinenet",
        family="RefineNet",
        build=_refinenet,
        file="dannet_refinenet.pth",
        enhancer="dannet:lightnet",
        fixture="dannet/refinenet",
    ),
    _entry(
        name="dannet:deeplab",
        family="DeepLabv2",
        build=partial(DeepLabV2, STAGE_CHANNELS[2:], 2),
        file="dannet_deeplab.pth",
        enhancer="dannet:lightnet",
        facts=AdaptationFacts(frozen_affine=True),
        fixture="dannet/deeplab",
    ),
    _entry(
        name="dannet:lightnet",
        family="LightNet (part of DANNet)",
        build=LightNet,
        segments=False,
        fixture="dannet/lightnet",
    ),
)
