"""ResNet-50 and ResNet-101 in every form the networks here use: stems, strides, dilations, closing norms.

After He et al., Deep Residual Learning, CVPR 2016, with the parameter names of torchvision. Forms differ in

- the stem: 7×7, or three 3×3 under the names `conv1…conv3` or `stem.0…stem.7`;
- which 3×3 or 1×1 convolution of a block carries its stride;
- whether the first block of a dilated stage already has that stage's dilation;
- a norm that closes the last block of a stage, after the residual sum (RobustNet).
"""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

NormFactory = Callable[[int], nn.Module]

EXPANSION = 4
WIDTHS = (64, 128, 256, 512)
STAGE_CHANNELS = (256, 512, 1024, 2048)
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STRIDES = {32: (1, 2, 2, 2), 16: (1, 2, 2, 1), 8: (1, 2, 1, 1)}
DILATIONS = {32: (1, 1, 1, 1), 16: (1, 1, 1, 2), 8: (1, 1, 2, 4)}


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution around a shortcut: B×inputs×H×W to B×4·width×H/stride×W/stride.

    Args:
        stride_on_first: the 1×1 convolution carries the stride (Caffe, DeepLabv2) instead of the 3×3.
        closing_norm: applied after the residual sum, before the last ReLU.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        stride_on_first: bool = False,
        closing_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        outputs = EXPANSION * width
        strides = (stride, 1) if stride_on_first else (1, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, strides[0], bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, strides[1], dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride) if stride > 1 or inputs != outputs else None
        self.instance_norm_layer = closing_norm

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x)) + shortcut
        return functional.relu(x if self.instance_norm_layer is None else self.instance_norm_layer(x))


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def residual_stages(
    depth: int,
    inputs: int = 64,
    *,
    output_stride: int = 32,
    dilate_first: bool = False,
    stride_on_first: bool = False,
    closing_norms: Sequence[NormFactory | None] = (None, None, None, None),
) -> list[nn.Sequential]:
    """The four stages of a ResNet, with 256, 512, 1024 and 2048 output channels.

    Args:
        depth: 50 or 101.
        inputs: channels of the stem.
        output_stride: 32, 16 or 8; at 16 the last stage is dilated by 2, at 8 the last two by 2 and 4.
        dilate_first: every block of a dilated stage has its dilation (DeepLabv2, RobustNet, PSPNet);
            otherwise the first keeps that of the stage before (torchvision, mmseg's contracted dilation).
        stride_on_first: see `Bottleneck`.
        closing_norms: per stage, makes the norm that closes its last block, or None.
    """
    stages = []
    settings = zip(WIDTHS, BLOCKS[depth], STRIDES[output_stride], DILATIONS[output_stride], closing_norms, strict=True)
    for width, blocks, stride, dilation, closing_norm in settings:
        first = dilation if dilate_first else max(1, dilation // 2)
        stage = [
            Bottleneck(
                EXPANSION * width if index else inputs,
                width,
                stride=1 if index else stride,
                dilation=dilation if index else first,
                stride_on_first=stride_on_first,
                closing_norm=closing_norm(EXPANSION * width) if closing_norm and index == blocks - 1 else None,
            )
            for index in range(blocks)
        ]
        stages.append(nn.Sequential(*stage))
        inputs = EXPANSION * width
    return stages


def stem_layers(
    outputs: int = 64, *, deep: bool = False, norms: Sequence[NormFactory] = (nn.BatchNorm2d,) * 3
) -> list[nn.Module]:
    """Convolution, norm and ReLU of a stem that halves the resolution: one 7×7, or three 3×3 if `deep`.

    Args:
        outputs: channels of the stem; the first two 3×3 convolutions have half as many.
        norms: makes the norm of each convolution; a 7×7 stem uses the first.
    """
    if not deep:
        return [nn.Conv2d(3, outputs, 7, 2, 3, bias=False), norms[0](outputs), nn.ReLU()]
    layers: list[nn.Module] = []
    widths = (3, outputs // 2, outputs // 2, outputs)
    for index, norm in enumerate(norms):
        stride = 1 if index else 2
        layers += [
            nn.Conv2d(widths[index], widths[index + 1], 3, stride, 1, bias=False),
            norm(widths[index + 1]),
            nn.ReLU(),
        ]
    return layers


class ResNet(nn.Module):
    """Image B×3×H×W to the features of the four stages, the first at a quarter of the resolution.

    Args:
        depth, output_stride, dilate_first, stride_on_first: see `residual_stages`.
        stem: "plain", one 7×7 convolution as `conv1`; "deep", three 3×3 as `conv1…conv3`;
            "sequential", three 3×3 as `stem.0…stem.7`.
        stem_width: channels of the stem.
        ceil_pool: the max pooling after the stem rounds sizes up, so that features are one pixel larger.
    """

    def __init__(
        self,
        depth: int,
        *,
        output_stride: int = 32,
        stem: Literal["plain", "deep", "sequential"] = "plain",
        stem_width: int = 64,
        ceil_pool: bool = False,
        dilate_first: bool = False,
        stride_on_first: bool = False,
    ) -> None:
        super().__init__()
        layers = stem_layers(stem_width, deep=stem != "plain")
        self.stem: nn.Sequential | None = nn.Sequential(*layers) if stem == "sequential" else None
        self.stem_names: tuple[tuple[str, str], ...] = ()
        if self.stem is None:
            self.stem_names = tuple((f"conv{i + 1}", f"bn{i + 1}") for i in range(len(layers) // 3))
            for i, (conv, norm) in enumerate(self.stem_names):
                self.add_module(conv, layers[3 * i])
                self.add_module(norm, layers[3 * i + 1])
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=ceil_pool)
        self.layer1, self.layer2, self.layer3, self.layer4 = residual_stages(
            depth,
            stem_width,
            output_stride=output_stride,
            dilate_first=dilate_first,
            stride_on_first=stride_on_first,
        )

    def stages(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image B×3×H×W to the features of layer1 … layer4."""
        first = self.layer1(self.pool(self._stem(image)))
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.stages(image)

    def _stem(self, x: Tensor) -> Tensor:
        if self.stem is not None:
            x = self.stem(x)
        for conv, norm in self.stem_names:
            x = functional.relu(self.get_submodule(norm)(self.get_submodule(conv)(x)))
        return x
