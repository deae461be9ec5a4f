"""ISANet: self-attention in two sparse steps, among pixels far apart and then among neighbours; in mmseg's form.

Written from Huang et al., Interlaced Sparse Self-Attention, 2019, with the parameter names of mmsegmentation.
"""

from functools import partial
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.entry import mmseg_entry
from allweather.models.nets.blocks.conv import ConvUnit
from allweather.models.nets.blocks.encoder_decoder import CLASSES, WIDTH, on_resnet
from allweather.models.nets.blocks.heads import Head
from allweather.models.nets.blocks.resnet import STAGE_CHANNELS

ATTENTION_WIDTH = 256
BLOCK = 8  # pixels of a neighbourhood's side, on the grid of the features


class SelfAttention(nn.Module):
    """Every pixel attends to every other one: B×C×h×w to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.key_project = _two_units(channels)
        self.query_project = _two_units(channels)
        self.value_project = nn.Conv2d(channels, channels, 1)
        self.output_project = ConvUnit(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            project(x).flatten(2).transpose(1, 2)  # B×hw×…
            for project in (self.query_project, self.key_project, self.value_project)
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.output_project(attended.transpose(1, 2).unflatten(2, x.shape[2:]))
        return projected


class IsaHead(Head):
    """Attention among pixels at the same place of their blocks, then within each block (paper Fig. 2)."""

    def __init__(self, inputs: int) -> None:
        super().__init__(WIDTH, CLASSES)
        self.in_conv = ConvUnit(inputs, WIDTH, 3)
        self.global_relation = SelfAttention(WIDTH)
        self.local_relation = SelfAttention(WIDTH)
        self.out_conv = ConvUnit(2 * WIDTH, WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        x = self.in_conv(features)
        height, width = x.shape[2:]
        rows, columns = ceil(height / BLOCK), ceil(width / BLOCK)
        below, right = rows * BLOCK - height, columns * BLOCK - width
        top, left = below // 2, right // 2
        padded = functional.pad(x, (left, right - left, top, below - top))
        related = self._local(self._global(padded.unflatten(3, (columns, BLOCK)).unflatten(2, (rows, BLOCK))))
        joined = torch.cat([related[:, :, top : top + height, left : left + width], x], 1)
        return self.classify(self.out_conv(joined))

    def _global(self, blocks: Tensor) -> Tensor:
        """B×C×R×8×Q×8, related across the R×Q blocks."""
        batch, channels, rows, _, columns, _ = blocks.shape
        apart = blocks.permute(0, 3, 5, 1, 2, 4).reshape(-1, channels, rows, columns)
        return self.global_relation(apart).view(batch, BLOCK, BLOCK, channels, rows, columns).permute(0, 3, 4, 1, 5, 2)

    def _local(self, blocks: Tensor) -> Tensor:
        """B×C×R×8×Q×8, related within each block, to B×C×8R×8Q."""
        batch, channels, rows, _, columns, _ = blocks.shape
        near = blocks.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, BLOCK, BLOCK)
        related = self.local_relation(near).view(batch, rows, columns, channels, BLOCK, BLOCK)
        return related.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _two_units(channels: int) -> nn.Sequential:
    return nn.Sequential(ConvUnit(channels, ATTENTION_WIDTH), ConvUnit(ATTENTION_WIDTH, ATTENTION_WIDTH))


def _build(depth: int) -> nn.Module:
    return on_resnet(depth, IsaHead(STAGE_CHANNELS[3]))


FILES = {50: "20210901_074202-89384497", 101: "20210901_145243-5b99c9b2"}
ENTRIES = tuple(
    mmseg_entry(
        "Huang et al., Interlaced Sparse Self-Attention, 2019",
        f"isanet_r{depth}-d8_512x1024_80k_cityscapes_{identity}",
        name=f"isanet:r{depth}",
        family="ISANet",
        build=partial(_build, depth),
        fixture=f"mmseg/isanet_r{depth}",
    )
    for depth, identity in FILES.items()
)
