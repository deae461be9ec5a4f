"""ESPNetv2 for Cityscapes: depth-wise dilated pyramids with an efficient pyramid-pooling decoder (widths 0.5 to 2.0).

Written from Mehta et al., ESPNetv2, CVPR 2019, with the parameter names of the authors' EdgeNets checkpoints.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from itertools import accumulate
from math import gcd
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.entry import Entry
from allweather.models.nets.blocks.conv import ConvUnit
from allweather.models.nets.blocks.prelu import ConvNormAct, NormAct
from allweather.models.segmenter import Preprocessing

LOGITS = 20  # 19 trainIds and void
BRANCHES = 4
PYRAMID_SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)


class DilatedDepthwise(nn.Module):
    """One 3×3 depth-wise convolution of the pyramid."""

    def __init__(self, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride, dilation, dilation=dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class PyramidUnit(nn.Module):
    """EESP: reduce, four dilated depth-wise branches summed hierarchically, expand (paper Fig. 1c).

    Args:
        field: the largest receptive field (pixels) of a branch; branches beyond it fall back to 3×3.
        stride: 2 leaves residual and activation to the caller.
    """

    def __init__(self, inputs: int, outputs: int, field: int, stride: int = 1) -> None:
        super().__init__()
        width = outputs // BRANCHES
        dilations = sorted(1 + i if 3 + 2 * i <= field else 1 for i in range(BRANCHES))
        self.proj_1x1 = ConvNormAct(inputs, width, 1, groups=BRANCHES)
        self.spp_dw = nn.ModuleList(DilatedDepthwise(width, stride, dilation) for dilation in dilations)
        self.conv_1x1_exp = ConvUnit(outputs, outputs, groups=BRANCHES, activation=None)
        self.br_after_cat = NormAct(outputs)
        self.module_act = nn.PReLU(outputs)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.proj_1x1(x)
        branches = list(accumulate(branch(reduced) for branch in self.spp_dw))
        expanded = self.conv_1x1_exp(self.br_after_cat(torch.cat(branches, 1)))
        return expanded if self.stride == 2 else self.module_act(expanded + x)


class Downsampler(nn.Module):
    """Halves the resolution: average pooling beside a strided pyramid, plus the reduced input image (Fig. 2)."""

    def __init__(self, inputs: int, outputs: int, field: int) -> None:
        super().__init__()
        self.eesp = PyramidUnit(inputs, outputs - inputs, field, stride=2)
        self.inp_reinf = nn.Sequential(ConvNormAct(3, 3, 3), ConvUnit(3, outputs, activation=None))
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        merged = torch.cat([_halve(x), self.eesp(x)], 1)
        while image.shape[2] > merged.shape[2]:
            image = _halve(image)
        return self.act(merged + self.inp_reinf(image))


class Encoder(nn.Module):
    """The backbone: features at 1/2, 1/4, 1/8 and 1/16 of the input."""

    def __init__(self, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.level1 = ConvNormAct(3, channels[0], 3, stride=2)
        self.level2_0 = Downsampler(channels[0], channels[1], field=13)
        self.level3_0 = Downsampler(channels[1], channels[2], field=11)
        self.level3 = nn.ModuleList(PyramidUnit(channels[2], channels[2], field=9) for _ in range(3))
        self.level4_0 = Downsampler(channels[2], channels[3], field=9)
        self.level4 = nn.ModuleList(PyramidUnit(channels[3], channels[3], field=7) for _ in range(7))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        half = self.level1(image)
        quarter = self.level2_0(half, image)
        eighth = self.level3_0(quarter, image)
        for unit in self.level3:
            eighth = unit(eighth)
        sixteenth = self.level4_0(eighth, image)
        for unit in self.level4:
            sixteenth = unit(sixteenth)
        return half, quarter, eighth, sixteenth


class ConvBlock(nn.Module):
    """The decoder's convolution, BatchNorm and PReLU, under the decoder's parameter names."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.cbr = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.cbr(x)


class NormBlock(nn.Module):
    """The decoder's BatchNorm and PReLU, under the decoder's parameter names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.br = nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.br(x)


class PyramidPooling(nn.Module):
    """Efficient pyramid pooling: one depth-wise convolution at each of five scales, merged by groups."""

    def __init__(self, inputs: int, width: int, outputs: int, last: bool = False) -> None:
        super().__init__()
        scales = len(PYRAMID_SCALES)
        self.stages = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False) for _ in PYRAMID_SCALES
        )
        self.projection_layer = ConvBlock(inputs, width, 1)
        self.merge_layer = nn.Sequential(
            NormBlock(width * scales),
            nn.ChannelShuffle(scales),
            ConvBlock(width * scales, width, 3, groups=width),
            nn.Conv2d(width, outputs, 1, bias=last),
        )
        self.br = nn.Identity() if last else NormBlock(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.projection_layer(x)
        levels = [_at_scale(x, scale, stage) for scale, stage in zip(PYRAMID_SCALES, self.stages, strict=True)]
        return self.br(self.merge_layer(torch.cat(levels, 1)))


class SkipConnection(nn.Module):
    """Encoder features for the decoder: a grouped convolution weighted per channel by the pooled features."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wt_layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.Sigmoid())
        self.expansion_layer = ConvBlock(inputs, outputs, 3, groups=gcd(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.expansion_layer(x) * self.wt_layer(x)


class EspNetV2(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 16, to logits B×20×H×W.

    Args:
        channels: of the encoder at 1/2, 1/4, 1/8 and 1/16.
    """

    def __init__(self, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        width = LOGITS // 2
        decoder = (64, 48, 32)
        self.base_net = Encoder(channels)
        self.bu_dec_l1 = PyramidPooling(channels[3], width, decoder[0])
        self.bu_dec_l2 = PyramidPooling(decoder[0], width, decoder[1])
        self.bu_dec_l3 = PyramidPooling(decoder[1], width, decoder[2])
        self.bu_dec_l4 = PyramidPooling(decoder[2], width, LOGITS, last=True)
        self.merge_enc_dec_l2 = SkipConnection(channels[2], decoder[0])
        self.merge_enc_dec_l3 = SkipConnection(channels[1], decoder[1])
        self.merge_enc_dec_l4 = SkipConnection(channels[0], decoder[2])
        self.bu_br_l2 = nn.Sequential(nn.BatchNorm2d(decoder[0]), nn.PReLU(decoder[0]))
        self.bu_br_l3 = nn.Sequential(nn.BatchNorm2d(decoder[1]), nn.PReLU(decoder[1]))
        self.bu_br_l4 = nn.Sequential(nn.BatchNorm2d(decoder[2]), nn.PReLU(decoder[2]))

    def forward(self, image: Tensor) -> Tensor:
        half, quarter, eighth, sixteenth = self.base_net(image)
        x = self.bu_dec_l1(sixteenth)
        x = self.bu_dec_l2(self.bu_br_l2(self.merge_enc_dec_l2(eighth) + _double(x)))
        x = self.bu_dec_l3(self.bu_br_l3(self.merge_enc_dec_l3(quarter) + _double(x)))
        x = self.bu_dec_l4(self.bu_br_l4(self.merge_enc_dec_l4(half) + _double(x)))
        return _resize(x, image.shape[2:])


def _at_scale(x: Tensor, scale: float, stage: nn.Module) -> Tensor:
    """`stage` applied to x at a share of its resolution, at least 5 pixels a side, back at x's own."""
    size = (x.shape[2], x.shape[3])
    times, parts = Fraction(scale).limit_denominator(10).as_integer_ratio()
    # ceil and max would be lost in an export, or fix its size
    height, width = (torch.sym_max(5, (side * times + parts - 1) // parts) for side in size)
    scaled = (cast(int, height), cast(int, width))
    if scale < 1:
        return _resize(stage(functional.adaptive_avg_pool2d(x, scaled)), size)
    if scale > 1:
        return functional.adaptive_avg_pool2d(stage(_resize(x, scaled)), size)
    return stage(x)


def _halve(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 2, 1)


def _double(x: Tensor) -> Tensor:
    return _resize(x, [2 * side for side in x.shape[2:]])


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(x, list(size), mode="bilinear", align_corners=True)


CHANNELS = {
    "0.5": (16, 32, 64, 128),
    "1.0": (32, 64, 128, 256),
    "1.5": (32, 96, 192, 384),
    "2.0": (32, 128, 256, 512),
}

ENTRIES = tuple(
    Entry(
        name=f"espnetv2:{width}",
        family="ESPNetv2",
        build=partial(EspNetV2, channels),
        source="Mehta et al., ESPNetv2, CVPR 2019; github.com/sacmehta/EdgeNets",
        licence="MIT",
        preprocessing=Preprocessing(size_multiple=16, align_corners=True),
        extra_logits=1,
        file=f"espnetv2_s_{width}_city_512x256.pth, espnetv2_s_{width}_city_1024x512.pth",
        publisher="github.com/sacmehta/EdgeNets, model/segmentation/model_zoo/espnetv2",
        fixture=f"espnetv2/s{width}",
    )
    for width, channels in CHANNELS.items()
)
