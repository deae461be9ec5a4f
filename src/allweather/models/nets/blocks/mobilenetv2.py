"""MobileNetV2 in the forms the networks here use: dilated, padded at the input, with closing norms.

After Sandler et al., MobileNetV2, CVPR 2018, with the parameter names of torchvision or of mmseg.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from allweather.models.nets.blocks.conv import ConvUnit, numbered_unit

NormFactory = Callable[[int], nn.Module]
Names = Literal["torchvision", "mmseg"]

STEM_CHANNELS = 32
EXPANSIONS = (1, 6, 6, 6, 6, 6, 6)
CHANNELS = (16, 24, 32, 64, 96, 160, 320)
BLOCKS = (1, 2, 3, 4, 3, 3, 1)


class InvertedResidual(nn.Module):
    """Expand, 3×3 depth-wise, project linearly; a shortcut where the shape allows one.

    Args:
        expansion: hidden channels per input channel; at 1 the expanding layer is left out.
        pad_input: the block's input is padded with zeros, ahead of the expansion, and the depth-wise
            convolution is not (VainF): other numbers at the borders, since the expansion's norm shifts zeros.
        closing_norm: applied to the block's output.
        names: the parameter names.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        pad_input: bool = False,
        closing_norm: nn.Module | None = None,
        names: Names = "torchvision",
    ) -> None:
        super().__init__()
        hidden = expansion * inputs
        padding = 0 if pad_input else dilation
        self.margin = dilation if pad_input else 0
        self.shortcut = stride == 1 and inputs == outputs
        unit = partial(ConvUnit if names == "mmseg" else numbered_unit, activation=nn.ReLU6)
        layers: list[nn.Module] = [] if expansion == 1 else [unit(inputs, hidden)]
        layers.append(unit(hidden, hidden, 3, stride=stride, dilation=dilation, groups=hidden, padding=padding))
        projection = ConvUnit(hidden, outputs, activation=None)
        layers += [projection] if names == "mmseg" else projection
        self.conv = nn.Sequential(*layers)
        self.instance_norm_layer = closing_norm

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x, [self.margin] * 4) if self.margin else x
        y = x + self.conv(padded) if self.shortcut else self.conv(padded)
        return y if self.instance_norm_layer is None else self.instance_norm_layer(y)


def inverted_stages(
    strides: Sequence[int],
    first_dilations: Sequence[int],
    dilations: Sequence[int],
    *,
    pad_input: bool = False,
    closing_norms: Mapping[int, NormFactory] | None = None,
    names: Names = "torchvision",
) -> list[nn.Sequential]:
    """The seven stages of a MobileNetV2 of width 1, with 16, 24, 32, 64, 96, 160 and 320 output channels.

    Args:
        strides: of each stage's first block.
        first_dilations, dilations: per stage, of its first block and of the others.
        pad_input, names: see `InvertedResidual`.
        closing_norms: by stage number from 0, makes the norm that closes its last block.
    """
    stages = []
    inputs = STEM_CHANNELS
    for index, (expansion, outputs, blocks) in enumerate(zip(EXPANSIONS, CHANNELS, BLOCKS, strict=True)):
        norm = (closing_norms or {}).get(index)
        stage = [
            InvertedResidual(
                outputs if block else inputs,
                outputs,
                expansion,
                stride=1 if block else strides[index],
                dilation=dilations[index] if block else first_dilations[index],
                pad_input=pad_input,
                closing_norm=norm(outputs) if norm and block == blocks - 1 else None,
                names=names,
            )
            for block in range(blocks)
        ]
        stages.append(nn.Sequential(*stage))
        inputs = outputs
    return stages
