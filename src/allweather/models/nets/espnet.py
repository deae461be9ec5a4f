"""ESPNet for Cityscapes (p = 2, q = 8): spatial pyramids of dilated convolutions with a light decoder.

Written from Mehta et al., ESPNet, ECCV 2018, with the parameter names of the authors' checkpoints.
"""

from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.entry import Entry
from allweather.models.nets.blocks.prelu import ConvNormAct, NormAct
from allweather.models.segmenter import Preprocessing

LOGITS = 20  # 19 trainIds and void
SHALLOW, DEEP = 2, 8  # pyramid units at 1/4 and at 1/8; p and q of the paper
EPS = 1e-3
DILATIONS = (1, 2, 4, 8, 16)


class Conv(nn.Module):
    """A convolution without bias, under the authors' parameter name."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = kernel // 2 * dilation
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Pyramid(nn.Module):
    """Reduce, then five dilated convolutions whose outputs are summed hierarchically and joined (paper Fig. 1a)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        width = outputs // len(DILATIONS)
        widest = outputs - width * (len(DILATIONS) - 1)
        self.c1 = Conv(inputs, width, kernel, stride)
        for dilation in DILATIONS:
            self.add_module(f"d{dilation}", Conv(width, widest if dilation == 1 else width, 3, dilation=dilation))

    def join(self, x: Tensor) -> Tensor:
        """The joined branches, before normalisation."""
        reduced = self.c1(x)
        plain, *dilated = (self.get_submodule(f"d{dilation}")(reduced) for dilation in DILATIONS)
        return torch.cat([plain, *accumulate(dilated)], 1)


class Downsampler(Pyramid):
    """A pyramid that halves the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel=3, stride=2)
        self.bn = nn.BatchNorm2d(outputs, EPS)
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.join(x)))


class PyramidUnit(Pyramid):
    """A pyramid at one resolution, with a residual where the width stays."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel=1)
        self.bn = NormAct(outputs, EPS)
        self.residual = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        joined = self.join(x)
        return self.bn(joined + x if self.residual else joined)


class Encoder(nn.Module):
    """ESPNet-C: features at 1/2 and 1/4, and class scores at 1/8."""

    def __init__(self) -> None:
        super().__init__()
        self.level1 = ConvNormAct(3, 16, 3, stride=2, eps=EPS)
        self.b1 = NormAct(16 + 3, EPS)
        self.level2_0 = Downsampler(16 + 3, 64)
        self.level2 = nn.Sequential(*(PyramidUnit(64, 64) for _ in range(SHALLOW)))
        self.b2 = NormAct(128 + 3, EPS)
        self.level3_0 = Downsampler(128 + 3, 128)
        self.level3 = nn.Sequential(*(PyramidUnit(128, 128) for _ in range(DEEP)))
        self.b3 = NormAct(256, EPS)
        self.classifier = Conv(256, LOGITS, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half_image = functional.avg_pool2d(image, 3, 2, 1)
        quarter_image = functional.avg_pool2d(half_image, 3, 2, 1)
        half = self.level1(image)
        start = self.level2_0(self.b1(torch.cat([half, half_image], 1)))
        quarter = self.b2(torch.cat([self.level2(start), start, quarter_image], 1))
        start = self.level3_0(quarter)
        return half, quarter, self.classifier(self.b3(torch.cat([start, self.level3(start)], 1)))


class EspNet(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 8, to logits B×20×H×W."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.level3_C = Conv(128 + 3, LOGITS, 1)
        self.br = nn.BatchNorm2d(LOGITS, EPS)
        self.conv = ConvNormAct(16 + LOGITS, LOGITS, 3, eps=EPS)
        self.up_l3 = nn.Sequential(_doubling())
        self.combine_l2_l3 = nn.Sequential(NormAct(2 * LOGITS, EPS), PyramidUnit(2 * LOGITS, LOGITS))
        self.up_l2 = nn.Sequential(_doubling(), NormAct(LOGITS, EPS))
        self.classifier = _doubling()

    def forward(self, image: Tensor) -> Tensor:
        half, quarter, eighth = self.encoder(image)
        x = torch.cat([self.level3_C(quarter), self.up_l3(self.br(eighth))], 1)
        x = self.up_l2(self.combine_l2_l3(x))
        return self.classifier(self.conv(torch.cat([x, half], 1)))


def _doubling() -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(LOGITS, LOGITS, 2, stride=2, bias=False)


ENTRIES = (
    Entry(
        name="espnet:q8",
        family="ESPNet",
        build=EspNet,
        source="Mehta et al., ESPNet, ECCV 2018; github.com/sacmehta/ESPNet",
        licence="MIT",
        preprocessing=Preprocessing(
            mean=(72.3923, 82.9090, 73.1584),
            std=(45.3192 * 255, 46.1529 * 255, 44.9148 * 255),  # the authors divide by 255 after std
            value_range=255.0,
            bgr=True,
            size_multiple=8,
        ),
        extra_logits=1,
        file="espnet_p_2_q_8.pth",
        publisher="github.com/sacmehta/ESPNet, pretrained/decoder",
        fixture="espnet/q8",
    ),
)
