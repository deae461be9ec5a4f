"""DeepLabv3+ of RobustNet: ResNet-50, ResNet-101 and MobileNetV2 with BN, IBN, SW, IW, IRW or ISW norms.

Written from Choi et al., RobustNet: Improving Domain Generalization in Urban-Scene Segmentation via Instance
Selective Whitening, CVPR 2021, with the parameter names of the authors' repository. A variant puts its norm
in three places: in a ResNet, as the stem's last norm and after the last sum of the first two stages; in
MobileNetV2, after the first block and after the stages of 32 and 64 channels.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.entry import Entry
from allweather.models.nets.blocks.aspp import RATES, PooledFirstAspp
from allweather.models.nets.blocks.conv import numbered_unit
from allweather.models.nets.blocks.mobilenetv2 import (
    CHANNELS,
    STEM_CHANNELS,
    inverted_stages,
)
from allweather.models.nets.blocks.norms import SwitchableWhitening, affine_instance_norm, instance_norm
from allweather.models.nets.blocks.resnet import STAGE_CHANNELS, NormFactory, residual_stages, stem_layers
from allweather.models.segmenter import Preprocessing

CLASSES = 19
WIDTH = 256
DETAIL_CHANNELS = 48
MOBILENET_FEATURES = 1280
MOBILENET_STRIDES = (1, 2, 2, 2, 1, 1, 1)
MOBILENET_FIRST_DILATIONS = (1, 1, 1, 1, 1, 2, 1)

NORMS: dict[str, NormFactory | None] = {
    "base": None,
    "ibn": affine_instance_norm,
    "sw": SwitchableWhitening,
    "iw": instance_norm,
    "irw": instance_norm,
    "isw": instance_norm,
}


class RobustNet(nn.Module):
    """RGB B×3×H×W, normalised, to logits B×19×H×W.

    `dsn` is the auxiliary head of the official training; it holds its weights and is not run.

    Args:
        layers: `layer0` to `layer4`, image to deep features.
        channels: of the features after layer1, layer3 and layer4.
        rates: dilations of the pyramid pooling.
    """

    def __init__(self, layers: list[nn.Sequential], channels: tuple[int, int, int], rates: tuple[int, ...]) -> None:
        super().__init__()
        self.layer0, self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.aspp = PooledFirstAspp(channels[2], rates, WIDTH)
        self.bot_fine = numbered_unit(channels[0], DETAIL_CHANNELS)
        self.bot_aspp = numbered_unit((len(rates) + 2) * WIDTH, WIDTH)
        self.final1 = nn.Sequential(*numbered_unit(WIDTH + DETAIL_CHANNELS, WIDTH, 3), *numbered_unit(WIDTH, WIDTH, 3))
        self.final2 = nn.Sequential(nn.Conv2d(WIDTH, CLASSES, 1))
        self.dsn = _auxiliary_head(channels[1])

    def forward(self, image: Tensor) -> Tensor:
        detail = self.layer1(self.layer0(image))
        deep = self.aspp(self.layer4(self.layer3(self.layer2(detail))))
        context = _resize(self.bot_aspp(deep), detail)
        logits = self.final2(self.final1(torch.cat([self.bot_fine(detail), context], 1)))
        return _resize(logits, image)


def resnet_network(depth: int, output_stride: int, variant: str) -> RobustNet:
    """The network on ResNet-50 (7×7 stem) or ResNet-101 (three 3×3 convolutions, 128 channels)."""
    norm = NORMS[variant]
    deep = depth == 101
    width = 128 if deep else 64
    last = norm or nn.BatchNorm2d
    norms = (nn.BatchNorm2d, nn.BatchNorm2d, last) if deep else (last,)
    stem = nn.Sequential(*stem_layers(width, deep=deep, norms=norms), nn.MaxPool2d(3, 2, 1))
    stages = residual_stages(
        depth, width, output_stride=output_stride, dilate_first=True, closing_norms=(norm, norm, None, None)
    )
    return RobustNet([stem, *stages], (STAGE_CHANNELS[0], STAGE_CHANNELS[2], STAGE_CHANNELS[3]), RATES[output_stride])


def mobilenet_network(variant: str) -> RobustNet:
    """The network on MobileNetV2 at output stride 16; only the block that lost its stride is dilated."""
    norm = NORMS[variant]
    norms = {} if norm is None else {0: norm, 2: norm, 3: norm}
    stages = inverted_stages(MOBILENET_STRIDES, MOBILENET_FIRST_DILATIONS, (1,) * 7, closing_norms=norms)
    blocks: list[list[nn.Module]] = [list(stage) for stage in stages]
    layers: list[list[nn.Module]] = [
        [numbered_unit(3, STEM_CHANNELS, 3, stride=2, activation=nn.ReLU6), *blocks[0]],
        blocks[1] + blocks[2],
        blocks[3],
        blocks[4] + blocks[5] + blocks[6],
        [numbered_unit(CHANNELS[6], MOBILENET_FEATURES, activation=nn.ReLU6)],
    ]
    return RobustNet(
        [nn.Sequential(*layer) for layer in layers], (CHANNELS[2], CHANNELS[6], MOBILENET_FEATURES), RATES[16]
    )


def _auxiliary_head(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, 512, 3, padding=1),
        nn.BatchNorm2d(512),
        nn.ReLU(),
        nn.Dropout2d(0.1),
        nn.Conv2d(512, CLASSES, 1),
    )


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)


def _entry(variant: str, backbone: str) -> Entry:
    return Entry(
        name=f"robustnet:{variant}-{backbone}",
        family="RobustNet DeepLabv3+",
        build=partial(BACKBONES[backbone], variant),
        source=f"Choi et al., RobustNet, CVPR 2021{SOURCES.get(variant, '')}; github.com/shachoi/RobustNet",
        licence="BSD-3-Clause",
        preprocessing=Preprocessing(align_corners=True),
        publisher="github.com/shachoi/RobustNet, folder of pretrained models linked in its README",
        nesting="state_dict",
        fixture=f"robustnet/{variant}_{backbone.replace('-', '_')}",
    )


BACKBONES: dict[str, Callable[[str], RobustNet]] = {
    "r50-os16": partial(resnet_network, 50, 16),
    "r101-os8": partial(resnet_network, 101, 8),
    "mobilenet": mobilenet_network,
}
SOURCES = {
    "ibn": "; norms of Pan et al., IBN-Net, ECCV 2018",
    "sw": "; norms of Pan et al., Switchable Whitening, ICCV 2019",
}
PUBLISHED = {
    "r50-os16": ("base", "ibn", "sw", "iw", "irw", "isw"),
    "r101-os8": ("base", "ibn", "isw"),
    "mobilenet": ("base", "isw"),
}
ENTRIES = tuple(_entry(variant, backbone) for backbone, variants in PUBLISHED.items() for variant in variants)
