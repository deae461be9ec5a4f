"""Atrous spatial pyramid pooling: parallel dilated convolutions and a pooled branch, in two published forms.

After Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017 (DeepLabv3).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from allweather.models.nets.blocks.conv import numbered_unit

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}


def pyramid_layers(inputs: int, outputs: int, rates: Sequence[int]) -> list[nn.Module]:
    """A 1×1 layer and one 3×3 layer per rate."""
    dilated = (numbered_unit(inputs, outputs, 3, dilation=rate) for rate in rates)
    return [numbered_unit(inputs, outputs), *dilated]


class ImagePooling(nn.Sequential):
    """Features averaged over the image, projected, and spread over the input's size again."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *numbered_unit(inputs, outputs))

    def forward(self, input: Tensor) -> Tensor:
        return spread(super().forward(input), input)  # type: ignore[no-untyped-call]


def spread(pooled: Tensor, features: Tensor) -> Tensor:
    """B×C×1×1 repeated over the size of `features`; equal to interpolating it, without copying."""
    return pooled.expand(-1, -1, *features.shape[2:])


class Aspp(nn.Module):
    """B×inputs×H×W to B×outputs×H×W, the pooled branch concatenated last (torchvision's and VainF's form).

    Args:
        rates: dilations of the 3×3 branches.
    """

    def __init__(self, inputs: int, rates: Sequence[int], outputs: int) -> None:
        super().__init__()
        layers = pyramid_layers(inputs, outputs, rates)
        self.convs = nn.ModuleList([*layers, ImagePooling(inputs, outputs)])
        branches = len(self.convs)
        self.project = nn.Sequential(*numbered_unit(branches * outputs, outputs), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([branch(x) for branch in self.convs], 1))


class PooledFirstAspp(nn.Module):
    """B×inputs×H×W to B×5·outputs×H×W, the pooled branch concatenated first, no projection (RobustNet's form).

    Args:
        rates: dilations of the 3×3 branches.
    """

    def __init__(self, inputs: int, rates: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.features = nn.ModuleList(pyramid_layers(inputs, outputs, rates))
        self.img_conv = numbered_unit(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        pooled = spread(self.img_conv(x.mean((2, 3), keepdim=True)), x)
        return torch.cat([pooled, *(branch(x) for branch in self.features)], 1)
