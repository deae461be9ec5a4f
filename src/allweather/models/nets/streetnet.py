"""StreetNet: a small encoder-decoder with BatchNorm, trained on this package's clear procedural scenes.

It exists so that every part of the package can be tried without a download; see benchmarks/train_streetnet.py.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.entry import Entry
from allweather.models.segmenter import AdaptationFacts, Preprocessing

CLASSES = 19
WIDTHS = (24, 48, 96, 112)
WEIGHTS = Path(__file__).parents[1] / "weights" / "streetnet.safetensors"


class Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut; the first may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class StreetNet(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 8, to logits B×19×H/2×W/2."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth, deep = WIDTHS
        self.stem = nn.Sequential(nn.Conv2d(3, half, 3, 2, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.quarter = nn.Sequential(Residual(half, quarter, 2), Residual(quarter, quarter))
        self.eighth = nn.Sequential(Residual(quarter, eighth, 2), Residual(eighth, eighth, dilation=2))
        self.deep = nn.Sequential(Residual(eighth, deep, dilation=4), Residual(deep, deep, dilation=8))
        self.up_quarter = _merge(deep + quarter, 64)
        self.up_half = _merge(64 + half, 48)
        self.head = nn.Conv2d(48, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        half = self.stem(image)
        quarter = self.quarter(half)
        x = self.deep(self.eighth(quarter))
        x = self.up_quarter(torch.cat([_enlarge(x), quarter], 1))
        x = self.up_half(torch.cat([_enlarge(x), half], 1))
        return self.head(x)


def _merge(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _enlarge(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear")


ENTRIES = (
    Entry(
        name="demo:streetnet",
        family="StreetNet",
        build=StreetNet,
        source="this package: benchmarks/train_streetnet.py",
        licence="Apache-2.0",
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size_multiple=8),
        facts=AdaptationFacts(bn_share=0.3, recommended={"mall-sample": {"lr": 1e-2}}),
        packaged=WEIGHTS,
    ),
)
