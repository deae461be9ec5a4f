"""RefineNet's decoder: features of four resolutions fused from the coarsest to the finest.

Written from Lin et al., RefineNet, CVPR 2017 (Fig. 2), with the parameter names of its widely used PyTorch form.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from allweather.models.nets.blocks.features import outputs_of
from allweather.models.nets.blocks.resnet import STAGE_CHANNELS, ResNet

WIDTHS = (512, 256, 256, 256)  # of the four refinements, the coarsest first
POOLINGS = 4


def conv3x3(inputs: int, outputs: int, bias: bool = False) -> nn.Conv2d:
    """3×3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class ResidualUnits(nn.Module):
    """Residual units of two convolutions without norms: B×C×h×w to the same.

    Args:
        units: how many.
    """

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.units = units
        for unit in range(1, units + 1):
            self.add_module(f"{unit}_conv", conv3x3(channels, channels, bias=True))
            self.add_module(f"{unit}_conv_relu_varout_dimred", conv3x3(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        for unit in range(1, self.units + 1):
            y = self.get_submodule(f"{unit}_conv")(functional.relu(x))
            x = x + self.get_submodule(f"{unit}_conv_relu_varout_dimred")(functional.relu(y))
        return x


class ChainedPooling(nn.Module):
    """A chain of 5×5 poolings and convolutions, all of whose outputs are added to the input.

    Args:
        convolve_first: the convolution of each link precedes its pooling (the paper's MatConvNet form).
    """

    def __init__(self, channels: int, convolve_first: bool = False) -> None:
        super().__init__()
        for link in range(1, POOLINGS + 1):
            self.add_module(f"{link}_outvar_dimred", conv3x3(channels, channels))
        self.convolve_first = convolve_first

    def forward(self, x: Tensor) -> Tensor:
        link = x
        for convolution in self.children():
            link = _pool(convolution(link)) if self.convolve_first else convolution(_pool(link))
            x = x + link
        return x


class RefineNetDecoder(nn.Module):
    """Features of four stages to logits at the finest one's resolution; a base class of networks.

    Args:
        classes: number of logits.
        matconvnet: the authors' form: convolutions before poolings, bicubic enlarging; otherwise the PyTorch one.
    """

    def __init__(self, classes: int, *, matconvnet: bool = False) -> None:
        super().__init__()
        self.do = nn.Dropout(0.5)  # of the two coarsest features and before the classifier
        self.matconvnet = matconvnet
        for group, (inputs, width) in enumerate(zip(reversed(STAGE_CHANNELS), WIDTHS, strict=True), 1):
            self.add_module(f"p_ims1d2_outl{group}_dimred", conv3x3(inputs, width))
            self.add_module(f"adapt_stage{group}_b", nn.Sequential(ResidualUnits(width, 2)))
            if group > 1:
                self.add_module(f"adapt_stage{group}_b2_joint_varout_dimred", conv3x3(width, width))
            self.add_module(f"mflow_conv_g{group}_pool", nn.Sequential(ChainedPooling(width, matconvnet)))
            self.add_module(f"mflow_conv_g{group}_b", nn.Sequential(ResidualUnits(width, 3)))
            if group < len(WIDTHS):
                self.add_module(f"mflow_conv_g{group}_b3_joint_varout_dimred", conv3x3(width, WIDTHS[group]))
        self.clf_conv = conv3x3(WIDTHS[-1], classes, bias=True)

    def classify(self, refined: Tensor) -> Tensor:
        """Refined features B×256×h×w to logits B×classes×h×w."""
        logits: Tensor = self.clf_conv(self.do(refined))
        return logits

    def refine(self, features: Sequence[Tensor]) -> Tensor:
        """Features of `layer1` … `layer4`, fused: B×256×h×w at the resolution of the first."""
        coarse: Tensor | None = None
        for group, stage in enumerate(reversed(features), 1):
            x = self._run("p_ims1d2_outl{}_dimred", group, self.do(stage) if group <= 2 else stage)
            x = self._run("adapt_stage{}_b", group, x)
            if coarse is not None:
                x = self._run("adapt_stage{}_b2_joint_varout_dimred", group, x)
                x = x + self._enlarge(coarse, x)
            x = self._run("mflow_conv_g{}_pool", group, functional.relu(x))
            x = self._run("mflow_conv_g{}_b", group, x)
            coarse = x if group == len(WIDTHS) else self._run("mflow_conv_g{}_b3_joint_varout_dimred", group, x)
        return x

    def _enlarge(self, coarse: Tensor, like: Tensor) -> Tensor:
        if self.matconvnet:  # antialias selects the cubic kernel that MATLAB has
            return functional.interpolate(coarse, like.shape[2:], mode="bicubic", antialias=True)
        return functional.interpolate(coarse, like.shape[2:], mode="bilinear", align_corners=True)

    def _run(self, name: str, group: int, x: Tensor) -> Tensor:
        result: Tensor = self.get_submodule(name.format(group))(x)
        return result


class RefineNet(RefineNetDecoder):
    """Image B×3×H×W to logits B×classes×H/4×W/4; the backbone's parameters have no prefix.

    Args:
        backbone: of output stride 32, with a 7×7 stem.
        matconvnet: see `RefineNetDecoder`.
    """

    def __init__(self, classes: int, backbone: ResNet, *, matconvnet: bool = False) -> None:
        super().__init__(classes, matconvnet=matconvnet)
        for name, module in backbone.named_children():
            self.add_module(name, module)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for name in ("conv1", "bn1"):
            x = self.get_submodule(name)(x)
        x = self.get_submodule("pool")(functional.relu(x))
        features = outputs_of((self.get_submodule(f"layer{number}") for number in range(1, 5)), x)
        return self.classify(self.refine(features))


def _pool(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 5, 1, 2)
