"""Decode heads under mmseg's parameter names: convolutions, pooled pyramids, dilated pyramids."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.nets.blocks.conv import ConvUnit, SeparableUnit

RATES = (12, 24, 36)
SCALES = (1, 2, 3, 6)
DETAIL_WIDTH = 48


class Head(nn.Module):
    """Dropout and a 1×1 classifier, `conv_seg`, that end every head."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def classify(self, features: Tensor) -> Tensor:
        """Features B×width×h×w to logits B×classes×h×w."""
        return self.conv_seg(self.dropout(features))


class FcnHead(Head):
    """3×3 units and a 1×1 classifier: features B×inputs×h×w to logits B×classes×h×w.

    Args:
        width: channels of each unit.
        units: how many.
        concatenate: one more unit sees the input beside the output of the others.
    """

    def __init__(self, inputs: int, width: int, classes: int, *, units: int = 1, concatenate: bool = False) -> None:
        super().__init__(width, classes)
        self.convs = nn.Sequential(*(ConvUnit(width if unit else inputs, width, 3) for unit in range(units)))
        self.conv_cat = ConvUnit(inputs + width, width, 3) if concatenate else None

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.join(x, self.convs(x)))

    def join(self, x: Tensor, features: Tensor) -> Tensor:
        """What the classifier sees of the input and the units' output."""
        return features if self.conv_cat is None else self.conv_cat(torch.cat([x, features], 1))


class PyramidPooling(nn.Sequential):
    """Averages over a grid, projected: B×inputs×h×w to B×outputs×scale×scale."""

    def __init__(self, scale: int, inputs: int, outputs: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(scale), ConvUnit(inputs, outputs))


class PspHead(Head):
    """Pooled pyramid beside the features, 3×3 unit, classifier (Zhao et al., PSPNet, CVPR 2017)."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.psp_modules = nn.ModuleList(PyramidPooling(scale, inputs, width) for scale in SCALES)
        self.bottleneck = ConvUnit(inputs + len(SCALES) * width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = (resize(pooling(x), x) for pooling in self.psp_modules)
        return self.classify(self.bottleneck(torch.cat([x, *pooled], 1)))


class AsppHead(Head):
    """Dilated pyramid, 3×3 unit, classifier (Chen et al., DeepLabv3, 2017).

    Args:
        separable: the dilated convolutions are (DeepLabv3+).
    """

    def __init__(self, inputs: int, width: int, classes: int, *, separable: bool = False) -> None:
        super().__init__(width, classes)
        self.image_pool = PyramidPooling(1, inputs, width)
        dilated = (
            SeparableUnit(inputs, width, rate) if separable else ConvUnit(inputs, width, 3, dilation=rate)
            for rate in RATES
        )
        self.aspp_modules = nn.ModuleList([ConvUnit(inputs, width), *dilated])
        self.bottleneck = ConvUnit((2 + len(RATES)) * width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.pyramid(x))

    def pyramid(self, x: Tensor) -> Tensor:
        """B×inputs×h×w to B×width×h×w."""
        branches = [resize(self.image_pool(x), x), *(branch(x) for branch in self.aspp_modules)]
        return self.bottleneck(torch.cat(branches, 1))


class DetailedAsppHead(AsppHead):
    """Separable pyramid of the deep features, joined by detailed ones (Chen et al., DeepLabv3+, ECCV 2018)."""

    def __init__(self, detail_inputs: int, inputs: int, width: int, classes: int) -> None:
        super().__init__(inputs, width, classes, separable=True)
        self.c1_bottleneck = ConvUnit(detail_inputs, DETAIL_WIDTH)
        self.sep_bottleneck = nn.Sequential(SeparableUnit(width + DETAIL_WIDTH, width), SeparableUnit(width, width))

    def forward(self, detail: Tensor, deep: Tensor) -> Tensor:  # type: ignore[override]
        joined = torch.cat([resize(self.pyramid(deep), detail), self.c1_bottleneck(detail)], 1)
        return self.classify(self.sep_bottleneck(joined))


def resize(x: Tensor, like: Tensor) -> Tensor:
    """x at the height and width of another, bilinearly."""
    return functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)
