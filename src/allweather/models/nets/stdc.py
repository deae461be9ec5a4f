"""STDC for Cityscapes: short-term dense concatenation blocks with an attention-refined context path.

Written from Fan et al., Rethinking BiSeNet for Real-time Semantic Segmentation, CVPR 2021, with the parameter names
of the authors' STDC-Seg and of mmsegmentation.
"""

from collections import OrderedDict
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.entry import Entry, mmseg_entry
from allweather.models.nets.blocks.conv import ConvUnit
from allweather.models.nets.blocks.features import outputs_of
from allweather.models.nets.blocks.heads import FcnHead
from allweather.models.segmenter import Preprocessing

CLASSES = 19
WIDTH = 128
FUSED = 256
STAGES = (256, 512, 1024)
BLOCKS = {"1": (2, 2, 2), "2": (4, 5, 3)}


class DenseBlock(nn.Module):
    """Four convolutions of falling width, their outputs concatenated (paper Fig. 3).

    Args:
        stride: 2 halves the resolution after the first convolution.
        authors: the authors' parameter names, else mmseg's.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, authors: bool) -> None:
        super().__init__()
        widths = (outputs // 2, outputs // 4, outputs // 8, outputs // 8)
        units = [ConvUnit(inputs, widths[0])]
        units += [ConvUnit(a, b, 3) for a, b in pairwise(widths)]
        self.names = ("conv_list", "avd_layer") if authors else ("layers", "downsample")
        self.add_module(self.names[0], nn.ModuleList(units))
        self.stride = stride
        if stride == 2:
            down = ConvUnit(widths[0], widths[0], 3, stride=2, groups=widths[0], activation=None)
            self.add_module(self.names[1], nn.Sequential(*down) if authors else down)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.get_submodule(self.names[0]).children()
        kept = x = first(x)
        if self.stride == 2:
            x = self.get_submodule(self.names[1])(x)
            kept = functional.avg_pool2d(kept, 3, 2, 1)
        outputs = [kept]
        for unit in rest:
            x = unit(x)
            outputs.append(x)
        return torch.cat(outputs, 1)


class AuthorsEncoder(nn.Module):
    """Image to features at 1/8, 1/16 and 1/32; the ImageNet classifier and the second names are kept, not run."""

    def __init__(self, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        stages = _stages(blocks, authors=True)
        self.features = nn.Sequential(*_stem(), *(block for stage in stages for block in stage))
        self.conv_last = ConvUnit(STAGES[2], STAGES[2])
        self.fc = nn.Linear(STAGES[2], STAGES[2], bias=False)
        self.bn = nn.BatchNorm1d(STAGES[2])
        self.linear = nn.Linear(STAGES[2], 1000, bias=False)
        ends = (2, 2 + blocks[0], 2 + blocks[0] + blocks[1], 2 + sum(blocks))
        self.x2 = nn.Sequential(self.features[:1])
        self.x4 = nn.Sequential(self.features[1:2])
        self.x8 = nn.Sequential(self.features[ends[0] : ends[1]])
        self.x16 = nn.Sequential(self.features[ends[1] : ends[2]])
        self.x32 = nn.Sequential(self.features[ends[2] : ends[3]])

    def forward(self, image: Tensor) -> list[Tensor]:
        eighth = self.x8(self.x4(self.x2(image)))
        sixteenth = self.x16(eighth)
        return [eighth, sixteenth, self.x32(sixteenth)]


class MmsegEncoder(nn.Module):
    """Image to features at 1/8, 1/16 and 1/32."""

    def __init__(self, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList([*_stem(), *_stages(blocks, authors=False)])

    def forward(self, image: Tensor) -> list[Tensor]:
        return outputs_of(self.stages, image)[2:]


class Attention(nn.Module):
    """Attention refinement: a 3×3 unit gated per channel by its own average: B×inputs×h×w to B×128×h×w."""

    def __init__(self, inputs: int, authors: bool) -> None:
        super().__init__()
        unit, gate = ConvUnit(inputs, WIDTH, 3), ConvUnit(WIDTH, WIDTH, activation=None)
        self.names = ("conv", "conv_atten", "bn_atten") if authors else ("conv_layer", "atten_conv_layer")
        gates = gate if authors else (nn.Sequential(nn.Identity(), gate),)
        for name, module in zip(self.names, (unit, *gates), strict=True):
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        unit, *gates = map(self.get_submodule, self.names)
        x = unit(x)
        gate = _average(x)
        for layer in gates:
            gate = layer(gate)
        return x * gate.sigmoid()


class Fusion(nn.Module):
    """Detail and context joined, with their channels weighted by the average: B×256×h×w."""

    def __init__(self, authors: bool) -> None:
        super().__init__()
        unit = ConvUnit(STAGES[0] + WIDTH, FUSED)
        squeeze, excite = nn.Conv2d(FUSED, FUSED // 4, 1, bias=False), nn.Conv2d(FUSED // 4, FUSED, 1, bias=False)
        if authors:
            self.names = ("convblk", "conv1", "conv2")
            self.convblk, self.conv1, self.conv2 = unit, squeeze, excite
            return
        self.names = ("conv0", "attention.1.conv", "attention.2.conv")
        self.conv0 = unit
        gates = (nn.Sequential(OrderedDict(conv=layer)) for layer in (squeeze, excite))
        self.attention = nn.Sequential(nn.Identity(), *gates)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        unit, squeeze, excite = map(self.get_submodule, self.names)
        x = unit(torch.cat([detail, context], 1))
        return x + x * excite(squeeze(_average(x)).relu()).sigmoid()


class AuthorsContext(nn.Module):
    """Image to detail B×256×H/8×W/8 and context B×128×H/8×W/8 (authors' names)."""

    def __init__(self, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.backbone = AuthorsEncoder(blocks)
        self.arm16 = Attention(STAGES[1], authors=True)
        self.arm32 = Attention(STAGES[2], authors=True)
        self.conv_head32 = ConvUnit(WIDTH, WIDTH, 3)
        self.conv_head16 = ConvUnit(WIDTH, WIDTH, 3)
        self.conv_avg = ConvUnit(STAGES[2], WIDTH)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return _paths(self, ("arm32", "conv_head32", "arm16", "conv_head16"), image)


class MmsegContext(nn.Module):
    """Image to fused features B×256×H/8×W/8 (mmseg's names)."""

    def __init__(self, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.backbone = MmsegEncoder(blocks)
        self.arms = nn.ModuleList(Attention(inputs, authors=False) for inputs in (STAGES[2], STAGES[1]))
        self.convs = nn.ModuleList(ConvUnit(WIDTH, WIDTH, 3) for _ in range(2))
        self.conv_avg = ConvUnit(STAGES[2], WIDTH)
        self.ffm = Fusion(authors=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.ffm(*_paths(self, ("arms.0", "convs.0", "arms.1", "convs.1"), image))


class Output(nn.Module):
    """A 3×3 unit and a 1×1 convolution without bias (authors' names)."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvUnit(inputs, width, 3)
        self.conv_out = nn.Conv2d(width, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class Stdc(nn.Module):
    """RGB B×3×H×W, normalised, to logits B×19×H×W (authors' form); outputs that only training needs are not run."""

    def __init__(self, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.cp = AuthorsContext(blocks)
        self.ffm = Fusion(authors=True)
        self.conv_out = Output(FUSED, FUSED, CLASSES)
        self.conv_out16 = Output(WIDTH, 64, CLASSES)
        self.conv_out32 = Output(WIDTH, 64, CLASSES)
        self.conv_out_sp16 = Output(STAGES[1], 64, 1)
        self.conv_out_sp8 = Output(STAGES[0], 64, 1)
        self.conv_out_sp4 = Output(64, 64, 1)
        self.conv_out_sp2 = Output(32, 64, 1)

    def forward(self, image: Tensor) -> Tensor:
        logits = self.conv_out(self.ffm(*self.cp(image)))
        return functional.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=True)


class BoundaryHead(FcnHead):
    """mmseg's auxiliary head for boundaries, with the fixed kernels that make its targets."""

    def __init__(self) -> None:
        super().__init__(STAGES[0], 64, 2)
        laplacian = torch.full((1, 1, 3, 3), -1.0)
        laplacian[..., 1, 1] = 8.0
        self.register_buffer("laplacian_kernel", laplacian)
        shares = torch.tensor([0.6, 0.3, 0.1]).view(1, 3, 1, 1)
        self.fusion_kernel = nn.Parameter(shares, requires_grad=False)


class MmsegStdc(nn.Module):
    """RGB B×3×H×W, normalised, to logits B×19×H/8×W/8; the auxiliary heads are not run."""

    def __init__(self, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.backbone = MmsegContext(blocks)
        self.decode_head = FcnHead(FUSED, FUSED, CLASSES)
        heads = [FcnHead(WIDTH, 64, CLASSES), FcnHead(WIDTH, 64, CLASSES), BoundaryHead()]
        self.auxiliary_head = nn.ModuleList(heads)

    def forward(self, image: Tensor) -> Tensor:
        return self.decode_head(self.backbone(image))


def _stem() -> list[nn.Module]:
    return [ConvUnit(3, 32, 3, stride=2), ConvUnit(32, 64, 3, stride=2)]


def _stages(blocks: tuple[int, int, int], authors: bool) -> list[nn.Sequential]:
    stages, inputs = [], 64
    for outputs, count in zip(STAGES, blocks, strict=True):
        rest = (DenseBlock(outputs, outputs, 1, authors) for _ in range(count - 1))
        stages.append(nn.Sequential(DenseBlock(inputs, outputs, 2, authors), *rest))
        inputs = outputs
    return stages


def _paths(context: nn.Module, parts: tuple[str, str, str, str], image: Tensor) -> tuple[Tensor, Tensor]:
    """Detail and context of an image; `parts` names attention and convolution at 1/32, then at 1/16."""
    detail, sixteenth, deep = context.get_submodule("backbone")(image)
    attend32, join32, attend16, join16 = map(context.get_submodule, parts)
    x = _like(join32, attend32(deep) + context.get_submodule("conv_avg")(_average(deep)), sixteenth)
    return detail, _like(join16, attend16(sixteenth) + x, detail)


def _average(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def _like(conv: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    """`conv` of x brought to the size of `other` by its nearest pixels."""
    upsampled: Tensor = conv(functional.interpolate(x, other.shape[2:], mode="nearest"))
    return upsampled


PAPER = "Fan et al., Rethinking BiSeNet, CVPR 2021"
FIXTURES = {"1": "stdc/STDCNet813", "2": "stdc/STDCNet1446"}
MMSEG_FILES = {"1": "20220224_141648-3d4c2981", "2": "20220224_073048-1f8f0f6c"}


def _authors_entry(size: str, percent: int) -> Entry:
    return Entry(
        name=f"stdc:{size}" if percent == 75 else f"stdc:{size}-{percent}",
        family="STDC",
        build=partial(Stdc, BLOCKS[size]),
        source=f"{PAPER}; github.com/MichaelFan01/STDC-Seg",
        licence="MIT",
        preprocessing=Preprocessing(input_scale=percent / 100, size_multiple=32, align_corners=True),
        file=f"STDC{size}-Seg/model_maxmIOU{percent}.pth",
        publisher="github.com/MichaelFan01/STDC-Seg, links in its README",
        fixture=FIXTURES[size],
    )


ENTRIES = (
    *(_authors_entry(size, percent) for size in BLOCKS for percent in (75, 50)),
    *(
        mmseg_entry(
            PAPER,
            f"stdc{size}_in1k-pre_512x1024_80k_cityscapes_{MMSEG_FILES[size]}",
            name=f"stdc:{size}-mmseg",
            family="STDC",
            build=partial(MmsegStdc, blocks),
            preprocessing=Preprocessing(size_multiple=32, align_corners=True),
            fixture=f"mmseg/stdc{size}",
        )
        for size, blocks in BLOCKS.items()
    ),
)
