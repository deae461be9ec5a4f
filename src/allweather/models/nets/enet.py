"""ENet for Cityscapes: an encoder that notes where each maximum lay, and a decoder that puts its features back there.

Written from Paszke et al., ENet, arXiv 2016, in the form and with the parameter names of zh320's collection, which has
ReLU inside the branches where the paper has PReLU.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from allweather.models.nets.blocks.conv import numbered_unit
from allweather.models.nets.blocks.prelu import SharedPReLU, prelu_unit
from allweather.models.nets.blocks.realtime import CLASSES, DownUnit, realtime_entry

HALF, QUARTER, EIGHTH = 16, 64, 128
QUARTER_DILATIONS = (1, 1, 1, 1)
EIGHTH_DILATIONS = (1, 2, None, 4, 1, 8, None, 16)  # None: asymmetric; at 1/8 twice
REDUCTION = 4


class Branch(nn.Module):
    """What bottlenecks share: a branch of convolutions, `layers` from the input to `hidden` channels and one more."""

    def __init__(self, *layers: nn.Module, hidden: int, outputs: int) -> None:
        super().__init__()
        self.right_init_conv = nn.Sequential(*layers)
        self.right_last_conv = nn.Sequential(nn.Conv2d(hidden, outputs, 1, bias=False))
        self.act = SharedPReLU()

    def beside(self, main: Tensor, x: Tensor) -> Tensor:
        """`main`, of the branch's shape, and the branch of `x`, added and activated."""
        return self.act(main + self.right_last_conv(self.right_init_conv(x)))


class Bottleneck(Branch):
    """B×C×H×W to the same.

    Args:
        dilation: of the 3×3 convolution; None has a 5×1 and a 1×5 in its place.
    """

    def __init__(self, channels: int, dilation: int | None = 1) -> None:
        hidden = channels // REDUCTION
        kernels = ((5, 1), (1, 5)) if dilation is None else (3,)
        middle = (numbered_unit(hidden, hidden, kernel, dilation=dilation or 1) for kernel in kernels)
        super().__init__(numbered_unit(channels, hidden), *middle, hidden=hidden, outputs=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.beside(x, x)


class Pooling(Branch):
    """B×inputs×H×W, H and W even, to B×outputs×H/2×W/2, and where the maxima lay: B×inputs×H/2×W/2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        hidden = inputs // REDUCTION
        halving = numbered_unit(inputs, hidden, 3, stride=2)  # 2×2 in the paper
        super().__init__(halving, numbered_unit(hidden, hidden, 3), hidden=hidden, outputs=outputs)
        self.left_conv = numbered_unit(inputs, outputs)  # the paper appends channels of zeros

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maxima, places = functional.max_pool2d(x, 2, return_indices=True)
        return self.beside(self.left_conv(maxima), x), places


class Unpooling(Branch):
    """B×inputs×H×W and the places of maxima, B×outputs×H×W, to B×outputs×2H×2W, zeros between the places."""

    def __init__(self, inputs: int, outputs: int) -> None:
        hidden = inputs // REDUCTION
        transposed = nn.ConvTranspose2d(hidden, hidden, 3, 2, 1, output_padding=1, bias=False)
        doubling = nn.Sequential(OrderedDict(up_conv=transposed))
        super().__init__(numbered_unit(inputs, hidden), doubling, hidden=hidden, outputs=outputs)
        self.left_conv = numbered_unit(inputs, outputs)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        return self.beside(functional.max_unpool2d(self.left_conv(x), places, (2, 2)), x)


class Encoding(nn.Module):
    """A stage of the encoder: as `Pooling`, bottlenecks after it."""

    def __init__(self, inputs: int, outputs: int, dilations: Sequence[int | None]) -> None:
        super().__init__()
        self.conv_pool = Pooling(inputs, outputs)
        self.conv_regular = _bottlenecks(outputs, dilations)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled, places = self.conv_pool(x)
        return self.conv_regular(pooled), places


class Decoding(nn.Module):
    """A stage of the decoder: as `Unpooling`, one or two bottlenecks after it."""

    def __init__(self, inputs: int, outputs: int, extra: bool) -> None:
        super().__init__()
        self.conv_unpool = Unpooling(inputs, outputs)
        self.conv_regular = Bottleneck(outputs)
        self.conv_extra = Bottleneck(outputs) if extra else nn.Identity()

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        return self.conv_extra(self.conv_regular(self.conv_unpool(x, places)))


class ENet(nn.Module):
    """RGB B×3×H×W, normalised, H and W multiples of 8, to logits B×19×H×W."""

    def __init__(self) -> None:
        super().__init__()
        self.initial = DownUnit(3, HALF, SharedPReLU)
        self.bottleneck1 = Encoding(HALF, QUARTER, QUARTER_DILATIONS)
        self.bottleneck2 = Encoding(QUARTER, EIGHTH, EIGHTH_DILATIONS)
        self.bottleneck3 = nn.Sequential(OrderedDict(conv_regular=_bottlenecks(EIGHTH, EIGHTH_DILATIONS)))
        self.bottleneck4 = Decoding(EIGHTH, QUARTER, extra=True)
        self.bottleneck5 = Decoding(QUARTER, HALF, extra=False)
        logits = prelu_unit(HALF, CLASSES)  # the paper: a transposed convolution alone
        self.fullconv = nn.Sequential(OrderedDict(up_conv=nn.Sequential(logits)))

    def forward(self, image: Tensor) -> Tensor:
        quarter, half_places = self.bottleneck1(self.initial(image))
        eighth, quarter_places = self.bottleneck2(quarter)
        quarter = self.bottleneck4(self.bottleneck3(eighth), quarter_places)
        logits = self.fullconv(self.bottleneck5(quarter, half_places))
        return functional.interpolate(logits, scale_factor=2, mode="bilinear")  # here alone without aligned corners


def _bottlenecks(channels: int, dilations: Sequence[int | None]) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(channels, dilation) for dilation in dilations))


ENTRIES = (realtime_entry("ENet", ENet, "Paszke et al., ENet, arXiv 2016", size_multiple=8),)
