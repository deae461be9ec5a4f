"""RefineNet on ResNet-101, with or without a learned colour invariant in front: CIConv's day-to-night networks.

Written from Lengyel et al., Zero-Shot Day-Night Domain Adaptation with a Physics Prior, ICCV 2021, with the parameter
names of the authors' project.
"""

from functools import partial
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.entry import Entry
from allweather.models.nets.blocks.refinenet import RefineNetDecoder
from allweather.models.nets.blocks.resnet import ResNet
from allweather.models.segmenter import Preprocessing

OUTPUTS = 20  # 19 classes and void
COLOR_MODEL = ((0.06, 0.63, 0.27), (0.3, 0.04, -0.35), (0.34, -0.6, 0.17))  # RGB to intensity and its two derivatives
EPS = 1e-5
LARGEST_SCALE = 2.5
EXTENT = 3  # of the filters, in standard deviations


class ColorInvariantW(nn.Module):
    """Edges that the intensity of the light does not change: RGB B×3×H×W in [0, 1] to B×1×H×W, standardised.

    Gaussian derivatives of the Gaussian colour model, each over the smoothed intensity, squared and summed; then the
    logarithm, standardised per image (paper Eq. 6, invariant W). The filters' width 2^scale is learned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> Tensor:
        spectrum = torch.einsum("ij,bjhw->bihw", image.new_tensor(COLOR_MODEL), image)
        filters = self._filters()
        smooth, down, across = (
            functional.conv2d(spectrum.flatten(0, 1)[:, None], filters, padding=filters.shape[2] // 2)
            .unflatten(0, (-1, 3))
            .unbind(2)
        )  # each B×3×H×W
        intensity = smooth[:, :1] + EPS
        edges = ((down / intensity).square() + (across / intensity).square()).sum(1, keepdim=True)
        return functional.instance_norm((edges + EPS).log())

    def _filters(self) -> Tensor:
        """Gaussian and its two derivatives, 3×1×k×k; k follows the scale, each filter's absolute sum is 1."""
        width = self.scale.clamp(-LARGEST_SCALE, LARGEST_SCALE).exp2()
        reach = ceil(EXTENT * float(width.detach()) + 0.5)
        offsets = torch.arange(-reach, reach + 1, dtype=self.scale.dtype, device=self.scale.device)
        bell = (-(offsets / width).square() / 2).exp()
        slope = -offsets * bell
        kernels = torch.stack([bell[:, None] * bell, slope[:, None] * bell, bell[:, None] * slope])
        return (kernels / kernels.abs().sum((1, 2), keepdim=True))[:, None]


class Backbone(ResNet):
    """ResNet-101 with the ImageNet classifier, which is kept and not run.

    Args:
        invariant: the colour invariant W replaces the image; the stem then sees one channel.
    """

    def __init__(self, invariant: bool) -> None:
        super().__init__(101)
        self.ciconv = ColorInvariantW() if invariant else None
        if invariant:
            self.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.stages(image if self.ciconv is None else self.ciconv(image))


class CiconvRefineNet(RefineNetDecoder):
    """Image B×3×H×W to logits B×20×H×W, the last for void, classified at the image's resolution.

    Args:
        invariant: see `Backbone`.
    """

    def __init__(self, invariant: bool) -> None:
        super().__init__(OUTPUTS)
        self.resnet = Backbone(invariant)

    def forward(self, image: Tensor) -> Tensor:
        refined = self.refine(self.resnet(image))
        return self.classify(functional.interpolate(refined, image.shape[2:], mode="bilinear", align_corners=True))


UNIT = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), align_corners=True)
_entry = partial(
    Entry,
    family="RefineNet",
    source="Lengyel et al., CIConv, ICCV 2021; github.com/Attila94/CIConv",
    licence="MIT",
    publisher="github.com/Attila94/CIConv, links in its README",
    nesting="model_state_dict",
    extra_logits=1,
    size=(1024, 512),
)
ENTRIES = (
    _entry(
        name="ciconv:rgb",
        build=partial(CiconvRefineNet, False),
        preprocessing=Preprocessing(align_corners=True),
        file="cityscapes_rgb.pth.tar",
        fixture="ciconv/refinenet_None",
    ),
    _entry(
        name="ciconv:w",
        build=partial(CiconvRefineNet, True),
        preprocessing=UNIT,
        file="cityscapes_w.pth.tar",
        fixture="ciconv/refinenet_W",
    ),
)
