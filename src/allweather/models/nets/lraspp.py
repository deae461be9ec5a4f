"""LRASPP on a dilated MobileNetV3, large or small, in mmseg's form.

Written from Howard et al., Searching for MobileNetV3, ICCV 2019, with the parameter names of mmsegmentation.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.entry import mmseg_entry
from allweather.models.nets.blocks.conv import ConvUnit
from allweather.models.nets.blocks.encoder_decoder import CLASSES
from allweather.models.nets.blocks.features import outputs_of
from allweather.models.nets.blocks.heads import Head, resize

EPS = 1e-3
STEM = 16
WIDTH = 128
BRANCHES = (32, 64)
POOL = 49
POOL_STRIDE = (16, 20)


@dataclass(frozen=True)
class Block:
    """One row of the paper's Tables 1 and 2, with the dilation that replaces a stride (section 6.4)."""

    kernel: int
    hidden: int
    outputs: int
    squeeze: bool
    activation: type[nn.Module]
    stride: int = 1
    dilation: int = 1


R, H = nn.ReLU, nn.Hardswish
LARGE = (
    Block(3, 16, 16, False, R),
    Block(3, 64, 24, False, R, 2),
    Block(3, 72, 24, False, R),
    Block(5, 72, 40, True, R, 2),
    Block(5, 120, 40, True, R),
    Block(5, 120, 40, True, R),
    Block(3, 240, 80, False, H, 1, 2),
    Block(3, 200, 80, False, H, 1, 2),
    Block(3, 184, 80, False, H, 1, 2),
    Block(3, 184, 80, False, H, 1, 2),
    Block(3, 480, 112, True, H, 1, 2),
    Block(3, 672, 112, True, H, 1, 2),
    Block(5, 672, 160, True, H, 1, 4),
    Block(5, 960, 160, True, H, 1, 4),
    Block(5, 960, 160, True, H, 1, 4),
)
SMALL = (
    Block(3, 16, 16, True, R, 2),
    Block(3, 72, 24, False, R, 2),
    Block(3, 88, 24, False, R),
    Block(5, 96, 40, True, H, 1, 2),
    Block(5, 240, 40, True, H, 1, 2),
    Block(5, 240, 40, True, H, 1, 2),
    Block(5, 120, 48, True, H, 1, 2),
    Block(5, 144, 48, True, H, 1, 2),
    Block(5, 288, 96, True, H, 1, 4),
    Block(5, 576, 96, True, H, 1, 4),
    Block(5, 576, 96, True, H, 1, 4),
)


class StridedUnit(ConvUnit):
    """A unit of stride 2 whose padding, where it is odd, has one pixel more below and right (TensorFlow's `same`)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int, activation: type[nn.Module]) -> None:
        super().__init__(inputs, outputs, kernel, stride=2, groups=groups, padding=0, activation=activation, eps=EPS)
        self.kernel = kernel

    def forward(self, input: Tensor) -> Tensor:
        margins = []
        for size in (input.shape[3], input.shape[2]):
            missing = max((size + 1) // 2 * 2 - 2 + self.kernel - size, 0)
            margins += [missing // 2, missing - missing // 2]
        result: Tensor = super().forward(functional.pad(input, margins))  # type: ignore[no-untyped-call]
        return result


class Squeeze(nn.Module):
    """Channels weighted by what their averages say of them: B×C×h×w to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = _multiple_of_eight(channels // 4)
        self.conv1 = nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, hidden, 1), activate=nn.ReLU()))
        self.conv2 = nn.Sequential(OrderedDict(conv=nn.Conv2d(hidden, channels, 1), activate=nn.Hardsigmoid()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(x.mean((2, 3), keepdim=True)))


class InvertedResidual(nn.Module):
    """Expand, depth-wise, squeeze, project linearly; a shortcut where the shape allows one."""

    def __init__(self, inputs: int, block: Block) -> None:
        super().__init__()
        self.shortcut = block.stride == 1 and inputs == block.outputs
        unit = partial(ConvUnit, activation=block.activation, eps=EPS)
        self.expand_conv = unit(inputs, block.hidden) if inputs != block.hidden else None
        self.depthwise_conv = (
            StridedUnit(block.hidden, block.hidden, block.kernel, block.hidden, block.activation)
            if block.stride == 2
            else unit(block.hidden, block.hidden, block.kernel, dilation=block.dilation, groups=block.hidden)
        )
        self.se = Squeeze(block.hidden) if block.squeeze else None
        self.linear_conv = ConvUnit(block.hidden, block.outputs, activation=None, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand_conv is None else self.expand_conv(x)
        y = self.depthwise_conv(y)
        y = self.linear_conv(y if self.se is None else self.se(y))
        return x + y if self.shortcut else y


class MobileNetV3(nn.Module):
    """Image B×3×H×W to the outputs of the layers `taps`; the deepest is at an eighth of the resolution."""

    def __init__(self, blocks: tuple[Block, ...], taps: tuple[int, ...]) -> None:
        super().__init__()
        self.taps = taps
        self.layer0 = StridedUnit(3, STEM, 3, 1, nn.Hardswish)
        inputs = STEM
        for number, block in enumerate(blocks, 1):
            self.add_module(f"layer{number}", InvertedResidual(inputs, block))
            inputs = block.outputs
        last = ConvUnit(inputs, 6 * inputs, activation=nn.Hardswish, eps=EPS)
        self.add_module(f"layer{len(blocks) + 1}", last)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = outputs_of(self.children(), x)
        return [features[tap] for tap in self.taps]


class LrasppHead(Head):
    """Deep features gated by a coarse pooling, joined by two finer ones: logits at half the resolution."""

    def __init__(self, fine: tuple[int, int], deep: int) -> None:
        super().__init__(WIDTH, CLASSES)
        self.aspp_conv = ConvUnit(deep, WIDTH, eps=EPS)
        gate = OrderedDict(conv=nn.Conv2d(deep, WIDTH, 1, bias=False), activate=nn.Sigmoid())
        self.image_pool = nn.ModuleList([CoarsePooling(), nn.Sequential(gate)])
        self.conv_up_input = nn.Conv2d(WIDTH, WIDTH, 1)
        branches = list(zip(fine, BRANCHES, strict=True))
        self.convs = nn.ModuleDict(
            {f"conv{i}": nn.Conv2d(inputs, width, 1, bias=False) for i, (inputs, width) in enumerate(branches)}
        )
        self.conv_ups = nn.ModuleDict(
            {f"conv_up{i}": ConvUnit(WIDTH + width, WIDTH, eps=EPS) for i, (_, width) in enumerate(branches)}
        )

    def forward(self, finest: Tensor, finer: Tensor, deep: Tensor) -> Tensor:
        pool, gate = self.image_pool
        features = self.aspp_conv(deep)
        x = self.conv_up_input(features * resize(gate(pool(deep)), features))
        for i, detail in ((1, finer), (0, finest)):
            joined = torch.cat([resize(x, detail), self.convs[f"conv{i}"](detail)], 1)
            x = self.conv_ups[f"conv_up{i}"](joined)
        return self.classify(x)


class CoarsePooling(nn.Module):
    """Averages over 49×49 pixels every 16 rows and 20 columns; over all of a smaller side."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, [min(POOL, size) for size in x.shape[2:]], POOL_STRIDE)


class Lraspp(nn.Module):
    """RGB B×3×H×W, normalised, to logits B×19×H/2×W/2.

    Args:
        blocks: `LARGE` or `SMALL`.
        taps: layers whose output the head sees.
    """

    def __init__(self, blocks: tuple[Block, ...], taps: tuple[int, int, int]) -> None:
        super().__init__()
        widths = (STEM, *(block.outputs for block in blocks))
        self.backbone = MobileNetV3(blocks, taps)
        self.decode_head = LrasppHead((widths[taps[0]], widths[taps[1]]), 6 * widths[-1])

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.decode_head(*self.backbone(image))
        return logits


def _multiple_of_eight(number: int) -> int:
    """The nearest multiple of 8 that is at least nine tenths of `number`."""
    nearest = max(8, (number + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * number else nearest + 8


NETWORKS = {  # by name: blocks, taps, mmseg's name, and the rest of its file name
    "large": (LARGE, (1, 3, 16), "m-v3", "20201224_220337-cfe8fb07"),
    "small": (SMALL, (0, 1, 12), "m-v3s", "20201224_223935-61565b34"),
}
ENTRIES = tuple(
    mmseg_entry(
        "Howard et al., Searching for MobileNetV3, ICCV 2019",
        f"lraspp_{short}-d8_512x1024_320k_cityscapes_{identity}",
        name=f"lraspp:{size}",
        family="LRASPP",
        build=partial(Lraspp, blocks, taps),
        fixture=f"mmseg/lraspp_{short}",
    )
    for size, (blocks, taps, short, identity) in NETWORKS.items()
)
