"""BiSeNetV2 for Cityscapes: a wide detail branch guided by a deep, narrow semantic branch.

Written from Yu et al., BiSeNet V2, IJCV 2021, with the parameter names of mmsegmentation and of CoinCheung's BiSeNet.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.entry import Entry, mmseg_entry
from allweather.models.nets.blocks.conv import ConvUnit
from allweather.models.nets.blocks.heads import FcnHead
from allweather.models.segmenter import Preprocessing

CLASSES = 19
WIDTH = 128
HEAD_WIDTH = 1024
EXPANSION = 6
DETAIL_STAGES = ((64, 64), (64, 64, 64), (128, 128, 128))
SEMANTIC_STAGES = ((16, 32, 2), (32, 64, 2), (64, 128, 4))  # inputs, outputs, layers
AUXILIARY = ((16, 16), (32, 64), (64, 256), (128, 1024))  # inputs, width


class Stem(nn.Module):
    """Image to 16 channels at 1/4: a strided convolution beside a max pooling (paper Fig. 4a)."""

    def __init__(self, first: str, branch: str, last: str) -> None:
        super().__init__()
        self.order = (first, branch, last)
        self.add_module(first, ConvUnit(3, 16, 3, stride=2))
        self.add_module(branch, nn.Sequential(ConvUnit(16, 8), ConvUnit(8, 16, 3, stride=2)))
        self.add_module(last, ConvUnit(32, 16, 3))

    def forward(self, image: Tensor) -> Tensor:
        first, branch, last = (self.get_submodule(name) for name in self.order)
        x = first(image)
        return last(torch.cat([branch(x), functional.max_pool2d(x, 3, 2, 1)], 1))


class GatherExpand(nn.Module):
    """Depth-wise expansion with a shortcut that has parameters where the resolution halves (Fig. 5).

    Args:
        expansion: `conv1`, the depth-wise convolutions and `conv2`, under their names.
        shortcut: None for the identity.
    """

    def __init__(self, expansion: "OrderedDict[str, nn.Module]", shortcut: nn.Module | None) -> None:
        super().__init__()
        self.order = tuple(expansion)
        for name, layer in expansion.items():
            self.add_module(name, layer)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for name in self.order:
            y = self.get_submodule(name)(y)
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ContextEmbedding(nn.Module):
    """Adds the normalised, projected image average to every pixel (Fig. 4b)."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        gap = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(WIDTH))
        self.norm = norm
        self.add_module(norm, gap if norm == "gap" else gap[1])
        self.conv_gap = ConvUnit(WIDTH, WIDTH)
        self.conv_last = ConvUnit(WIDTH, WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.get_submodule(self.norm)(x.mean((2, 3), keepdim=True))
        return self.conv_last(x + self.conv_gap(pooled))


class GuidedAggregation(nn.Module):
    """Each branch gated by the other's sigmoid, at both resolutions, and summed (Fig. 6).

    Args:
        names: of the detail branch's two paths and the semantic branch's two.
        flat: CoinCheung's form: convolutions without wrappers, nearest upsampling.
    """

    def __init__(self, names: tuple[str, str, str, str], flat: bool) -> None:
        super().__init__()
        self.order = names
        self.mode = "nearest" if flat else "bilinear"
        down = _unit(flat, WIDTH, WIDTH, 3, stride=2, activation=None)
        paths = (
            _separable(flat),
            nn.Sequential(*down, nn.AvgPool2d(3, 2, 1)),
            _unit(flat, WIDTH, WIDTH, 3, activation=None),
            _separable(flat),
        )
        for name, path in zip(names, paths, strict=True):
            self.add_module(name, path)
        last = ConvUnit(WIDTH, WIDTH, 3)
        self.conv = nn.Sequential(*last) if flat else last

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        keep, down, gate, deep = (self.get_submodule(name) for name in self.order)
        fine = keep(detail)
        fine = fine * self._like(gate(semantic), fine).sigmoid()
        coarse = down(detail) * deep(semantic).sigmoid()
        return self.conv(fine + self._like(coarse, fine))

    def _like(self, x: Tensor, other: Tensor) -> Tensor:
        return functional.interpolate(x, other.shape[2:], mode=self.mode)


class MmsegBackbone(nn.Module):
    """Both branches and their aggregation under mmseg's names: image to B×128×H/8×W/8."""

    def __init__(self) -> None:
        super().__init__()
        self.detail = nn.Sequential(OrderedDict(detail_branch=nn.Sequential(*_detail_stages())))
        self.semantic = nn.Sequential(
            OrderedDict(
                stage1=Stem("conv_first", "convs", "fuse_last"),
                **{f"stage{i}": _semantic_stage(False, *stage) for i, stage in enumerate(SEMANTIC_STAGES, 2)},
                stage4_CEBlock=ContextEmbedding("gap"),
            )
        )
        self.bga = GuidedAggregation(("detail_dwconv", "detail_down", "semantic_conv", "semantic_dwconv"), flat=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.bga(self.detail(image), self.semantic(image))


class MmsegBiSeNetV2(nn.Module):
    """RGB B×3×H×W, normalised, to logits B×19×H/8×W/8; the auxiliary heads are not run."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = MmsegBackbone()
        self.decode_head = FcnHead(WIDTH, HEAD_WIDTH, CLASSES)
        self.auxiliary_head = nn.ModuleList(FcnHead(*sizes, CLASSES, units=2) for sizes in AUXILIARY)

    def forward(self, image: Tensor) -> Tensor:
        return self.decode_head(self.backbone(image))


class FlatHead(nn.Module):
    """A 3×3 unit and a classifier under CoinCheung's names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvUnit(WIDTH, HEAD_WIDTH, 3)
        self.drop = nn.Dropout(0.1)
        self.conv_out = nn.Sequential(nn.Identity(), nn.Conv2d(HEAD_WIDTH, CLASSES, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.drop(self.conv(x)))


class FlatBiSeNetV2(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 32, to logits B×19×H×W (CoinCheung's form)."""

    def __init__(self) -> None:
        super().__init__()
        stages = zip(("S3", "S4", "S5_4"), SEMANTIC_STAGES, strict=True)
        self.detail = nn.Sequential(OrderedDict(zip(("S1", "S2", "S3"), _detail_stages(), strict=True)))
        self.segment = nn.Sequential(
            OrderedDict(
                S1S2=Stem("conv", "left", "fuse"),
                **{name: _semantic_stage(True, *stage) for name, stage in stages},
                S5_5=ContextEmbedding("bn"),
            )
        )
        self.bga = GuidedAggregation(("left1", "left2", "right1", "right2"), flat=True)
        self.head = FlatHead()

    def forward(self, image: Tensor) -> Tensor:
        logits = self.head(self.bga(self.detail(image), self.segment(image)))
        return functional.interpolate(logits, image.shape[2:], mode="bilinear")


def _detail_stages() -> list[nn.Sequential]:
    stages, inputs = [], 3
    for widths in DETAIL_STAGES:
        sources = (inputs, *widths[:-1])
        units = (ConvUnit(*pair, 3, stride=1 if i else 2) for i, pair in enumerate(zip(sources, widths, strict=True)))
        stages.append(nn.Sequential(*units))
        inputs = widths[-1]
    return stages


def _semantic_stage(flat: bool, inputs: int, outputs: int, layers: int) -> nn.Sequential:
    rest = (_gather_expand(flat, outputs) for _ in range(layers - 1))
    return nn.Sequential(_gather_expand_down(flat, inputs, outputs), *rest)


def _gather_expand(flat: bool, channels: int) -> GatherExpand:
    hidden = EXPANSION * channels
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=ConvUnit(channels, channels, 3),
        dwconv=_unit(flat, channels, hidden, 3, groups=channels),
        conv2=_unit(flat, hidden, channels, activation=None),
    )
    return GatherExpand(layers, None)


def _gather_expand_down(flat: bool, inputs: int, outputs: int) -> GatherExpand:
    """The layer that halves the resolution: two depth-wise convolutions and a separable shortcut."""
    hidden = EXPANSION * inputs
    first = _unit(flat, inputs, hidden, 3, stride=2, groups=inputs, activation=None)
    second = _unit(flat, hidden, hidden, 3, groups=hidden)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=ConvUnit(inputs, inputs, 3))
    layers.update(dwconv1=first, dwconv2=second) if flat else layers.update(dwconv=nn.Sequential(*first, *second))
    layers["conv2"] = _unit(flat, hidden, outputs, activation=None)
    depthwise = ConvUnit(inputs, inputs, 3, stride=2, groups=inputs, activation=None)
    pointwise = ConvUnit(inputs, outputs, activation=None)
    return GatherExpand(layers, nn.Sequential(*depthwise, *pointwise) if flat else _pair(depthwise, pointwise))


def _separable(flat: bool) -> nn.Sequential:
    """Depth-wise convolution with norm, then a bare 1×1 one, which has a bias in mmseg's form."""
    depthwise = ConvUnit(WIDTH, WIDTH, 3, groups=WIDTH, activation=None)
    pointwise = nn.Conv2d(WIDTH, WIDTH, 1, bias=not flat)
    if flat:
        return nn.Sequential(*depthwise, pointwise)
    return _pair(depthwise, nn.Sequential(OrderedDict(conv=pointwise)))


def _pair(depthwise: nn.Module, pointwise: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Sequential(OrderedDict(depthwise_conv=depthwise, pointwise_conv=pointwise)))


def _unit(
    flat: bool,
    inputs: int,
    outputs: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """A unit whose layers are numbered (CoinCheung) or that is the one layer of a sequence (mmseg)."""
    unit = ConvUnit(inputs, outputs, kernel, stride=stride, groups=groups, activation=activation)
    return nn.Sequential(*unit) if flat else nn.Sequential(unit)


PAPER = "Yu et al., BiSeNet V2, IJCV 2021"
ENTRIES = (
    Entry(
        name="bisenetv2:coincheung",
        family="BiSeNetV2",
        build=FlatBiSeNetV2,
        source=f"{PAPER}; github.com/CoinCheung/BiSeNet",
        licence="MIT",
        preprocessing=Preprocessing(mean=(0.3257, 0.3690, 0.3223), std=(0.2112, 0.2148, 0.2115), size_multiple=32),
        file="model_final_v2_city.pth",
        publisher="github.com/CoinCheung/BiSeNet, releases",
        drop=("aux*",),
        fixture="coincheung/bisenetv2",
    ),
    mmseg_entry(
        PAPER,
        "bisenetv2_fcn_4x4_1024x1024_160k_cityscapes_20210902_015551-bcf10f09",
        name="bisenetv2:mmseg",
        family="BiSeNetV2",
        build=MmsegBiSeNetV2,
        preprocessing=Preprocessing(size_multiple=32),
        fixture="mmseg/bisenetv2",
    ),
)
