"""SegFormer B0 to B5 for Cityscapes: a hierarchical transformer encoder and a decoder of 1×1 convolutions.

Written from Xie et al., SegFormer, NeurIPS 2021, with the parameter names of mmsegmentation, whose decoder has a norm
at every scale. Stochastic depth, which only training uses, is left out.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from allweather.models.entry import mmseg_entry
from allweather.models.nets.blocks.conv import ConvUnit
from allweather.models.nets.blocks.features import outputs_of
from allweather.models.nets.blocks.heads import Head, resize
from allweather.models.segmenter import Preprocessing, Window

CLASSES = 19
HEAD_WIDTH = 256
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
EXPANSION = 4
EPS = 1e-6  # of every LayerNorm


class PatchEmbedding(nn.Module):
    """Overlapping patches: B×inputs×H×W to tokens B×N×width and the size (h, w) they tile."""

    def __init__(self, inputs: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(inputs, width, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.projection(x)
        return self.norm(_tokens(x)), (x.shape[2], x.shape[3])


class ReducedAttention(nn.Module):
    """Self-attention whose keys and values are spatially reduced by `reduction` (paper Eq. 2)."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.reduction = reduction
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width, EPS)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        context = tokens
        if self.reduction > 1:
            context = self.norm(_tokens(self.sr(_image(tokens, size))))
        attended: Tensor = self.attn(tokens, context, context, need_weights=False)[0]
        return attended


class MixFeedForward(nn.Module):
    """Feed-forward layer with a depth-wise 3×3 convolution, which stands for positions (Eq. 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = EXPANSION * width
        self.layers = nn.Sequential(
            nn.Conv2d(width, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Identity(),
            nn.Conv2d(hidden, width, 1),
        )

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        return _tokens(self.layers(_image(tokens, size)))


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each on normalised tokens and added to its input."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = ReducedAttention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.ffn = MixFeedForward(width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens), size)
        return tokens + self.ffn(self.norm2(tokens), size)


class Stage(nn.ModuleList):
    """Patches, encoder layers and a closing norm: B×inputs×H×W to B×outputs×h×w."""

    def __init__(self, inputs: int, outputs: int, index: int, depth: int) -> None:
        kernel, stride = (3, 2) if index else (7, 4)
        layers = (EncoderLayer(outputs, HEADS[index], REDUCTIONS[index]) for _ in range(depth))
        embedding = PatchEmbedding(inputs, outputs, kernel, stride)
        super().__init__([embedding, nn.ModuleList(layers), nn.LayerNorm(outputs, EPS)])

    def forward(self, x: Tensor) -> Tensor:
        embedding, layers, norm = self
        tokens, size = embedding(x)
        for layer in layers.children():
            tokens = layer(tokens, size)
        return _image(norm(tokens), size)


class MixTransformer(nn.Module):
    """Image B×3×H×W to features at 1/4, 1/8, 1/16 and 1/32.

    Args:
        width: channels of the first stage per head; stage i has width · HEADS[i].
        depths: layers per stage.
    """

    def __init__(self, width: int, depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        widths = [width * heads for heads in HEADS]
        self.layers = nn.ModuleList(
            Stage(inputs, outputs, index, depths[index])
            for index, (inputs, outputs) in enumerate(pairwise((3, *widths)))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        return outputs_of(self.layers, image)


class Decoder(Head):
    """Every scale projected, upsampled to 1/4, concatenated and fused: logits B×19×H/4×W/4."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__(HEAD_WIDTH, CLASSES)
        self.convs = nn.ModuleList(ConvUnit(width, HEAD_WIDTH) for width in widths)
        self.fusion_conv = ConvUnit(len(widths) * HEAD_WIDTH, HEAD_WIDTH)

    def forward(self, features: list[Tensor]) -> Tensor:
        scales = [resize(conv(x), features[0]) for conv, x in zip(self.convs, features, strict=True)]
        return self.classify(self.fusion_conv(torch.cat(scales, 1)))


class SegFormer(nn.Module):
    """RGB B×3×H×W, normalised, to logits B×19×H/4×W/4.

    Args:
        width, depths: see `MixTransformer`.
    """

    def __init__(self, width: int, depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.backbone = MixTransformer(width, depths)
        self.decode_head = Decoder([width * heads for heads in HEADS])

    def forward(self, image: Tensor) -> Tensor:
        return self.decode_head(self.backbone(image))


def _tokens(x: Tensor) -> Tensor:
    """B×C×h×w to B×hw×C."""
    return x.flatten(2).transpose(1, 2)


def _image(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """B×hw×C to B×C×h×w."""
    return tokens.transpose(1, 2).unflatten(2, size)


VARIANTS = {  # by name: width, depths, and the rest of mmseg's file name
    "b0": (32, (2, 2, 2, 2), "20211208_101857-e7f88502"),
    "b1": (64, (2, 2, 2, 2), "20211208_064213-655c7b3f"),
    "b2": (64, (3, 4, 6, 3), "20211207_134205-6096669a"),
    "b3": (64, (3, 4, 18, 3), "20211206_224823-a8f8a177"),
    "b4": (64, (3, 8, 27, 3), "20211207_080709-07f6c333"),
    "b5": (64, (3, 6, 40, 3), "20211206_072934-87a052ec"),
}
RECORDED = ("b0", "b5")  # those with a reference fixture

ENTRIES = tuple(
    mmseg_entry(
        "Xie et al., SegFormer, NeurIPS 2021",
        f"segformer_mit-{name}_8x1_1024x1024_160k_cityscapes_{identity}",
        name=f"segformer:{name}",
        family="SegFormer",
        build=partial(SegFormer, width, depths),
        preprocessing=Preprocessing(size_multiple=32),
        window=Window(1024, 768),
        fixture=f"mmseg/segformer_{name}" if name in RECORDED else None,
    )
    for name, (width, depths, identity) in VARIANTS.items()
)
