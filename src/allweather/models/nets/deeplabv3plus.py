"""DeepLabv3+ with MobileNetV2, ResNet-50 and ResNet-101 at output stride 16 and 8, as VainF trained them.

Written from Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation,
ECCV 2018, with the parameter names of VainF's DeepLabV3Plus-Pytorch; no convolution is separable there.
"""

from functools import partial

import torch
from torch import Tensor, nn

from allweather.models.entry import Entry
from allweather.models.nets.blocks.aspp import RATES, Aspp
from allweather.models.nets.blocks.conv import numbered_unit
from allweather.models.nets.blocks.heads import resize
from allweather.models.nets.blocks.mobilenetv2 import (
    CHANNELS,
    STEM_CHANNELS,
    inverted_stages,
)
from allweather.models.nets.blocks.resnet import STAGE_CHANNELS, ResNet

CLASSES = 19
DETAIL_CHANNELS = 48
WIDTH = 256

# per stage of MobileNetV2, by output stride: the first block of a dilated stage keeps the dilation before it
STRIDES = {16: (1, 2, 2, 2, 1, 1, 1), 8: (1, 2, 2, 1, 1, 1, 1)}
FIRST_DILATIONS = {16: (1, 1, 1, 1, 1, 1, 2), 8: (1, 1, 1, 1, 2, 2, 4)}
DILATIONS = {16: (1, 1, 1, 1, 1, 2, 2), 8: (1, 1, 1, 2, 2, 4, 4)}


class ResNetEncoder(ResNet):
    """Image B×3×H×W to its features at 1/4 (256 channels) and at 1/output_stride (2048 channels)."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        stages = self.stages(image)
        return stages[0], stages[3]


class MobileNetEncoder(nn.Module):
    """Image B×3×H×W to its features at 1/4 (24 channels) and at 1/output_stride (320 channels).

    The stem's convolution is not padded and blocks are padded at their input: part of the published weights.
    """

    def __init__(self, output_stride: int) -> None:
        super().__init__()
        stages = inverted_stages(
            STRIDES[output_stride], FIRST_DILATIONS[output_stride], DILATIONS[output_stride], pad_input=True
        )
        stem = numbered_unit(3, STEM_CHANNELS, 3, stride=2, padding=0, activation=nn.ReLU6)
        layers = nn.Sequential(stem, *(block for stage in stages for block in stage))
        self.low_level_features = layers[:4]
        self.high_level_features = layers[4:]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        detail = self.low_level_features(image)
        return detail, self.high_level_features(detail)


class Decoder(nn.Module):
    """Spatial pyramid pooling of the deep features, joined by the detailed ones: logits B×19×H/4×W/4."""

    def __init__(self, detail_inputs: int, inputs: int, output_stride: int) -> None:
        super().__init__()
        self.project = numbered_unit(detail_inputs, DETAIL_CHANNELS)
        self.aspp = Aspp(inputs, RATES[output_stride], WIDTH)
        self.classifier = nn.Sequential(*numbered_unit(DETAIL_CHANNELS + WIDTH, WIDTH, 3), nn.Conv2d(WIDTH, CLASSES, 1))

    def forward(self, detail: Tensor, deep: Tensor) -> Tensor:
        detail = self.project(detail)
        return self.classifier(torch.cat([detail, resize(self.aspp(deep), detail)], 1))


class DeepLabV3Plus(nn.Module):
    """RGB B×3×H×W, normalised, to logits B×19×H×W.

    Args:
        backbone: "mobilenet", "resnet50" or "resnet101".
        output_stride: 16 or 8, the input's resolution over that of the deepest features.
    """

    def __init__(self, backbone: str, output_stride: int) -> None:
        super().__init__()
        if backbone == "mobilenet":
            self.backbone: nn.Module = MobileNetEncoder(output_stride)
            channels = (CHANNELS[1], CHANNELS[6])
        else:
            self.backbone = ResNetEncoder(int(backbone.removeprefix("resnet")), output_stride=output_stride)
            channels = (STAGE_CHANNELS[0], STAGE_CHANNELS[3])
        self.classifier = Decoder(*channels, output_stride)

    def forward(self, image: Tensor) -> Tensor:
        return resize(self.classifier(*self.backbone(image)), image)


def _entry(backbone: str, output_stride: int) -> Entry:
    published = output_stride == 16 and backbone != "resnet50"
    return Entry(
        name=f"deeplabv3plus:{backbone}-os{output_stride}",
        family="DeepLabv3+",
        build=partial(DeepLabV3Plus, backbone, output_stride),
        source="Chen et al., DeepLabv3+, ECCV 2018; github.com/VainF/DeepLabV3Plus-Pytorch",
        licence="MIT",
        file=f"best_deeplabv3plus_{backbone}_cityscapes_os16.pth" if published else None,
        publisher="github.com/VainF/DeepLabV3Plus-Pytorch, links in its README" if published else None,
        nesting="model_state",
        fixture=f"vainf/deeplabv3plus_{backbone}_os{output_stride}",
    )


ENTRIES = tuple(
    _entry(backbone, output_stride) for backbone in ("mobilenet", "resnet50", "resnet101") for output_stride in (8, 16)
)
