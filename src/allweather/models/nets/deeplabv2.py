"""DeepLabv2 on ResNet-101 as the domain adaptation papers use it: AdaptSegNet, ADVENT, BDL.

After Chen et al., DeepLab, PAMI 2018, with the parameter names that these projects share.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from allweather.models.entry import Entry
from allweather.models.nets.blocks.resnet import STAGE_CHANNELS, ResNet
from allweather.models.segmenter import AdaptationFacts, Preprocessing

CLASSES = 19
RATES = (6, 12, 18, 24)


class DilatedSum(nn.Module):
    """Classifiers of several dilations, summed: B×inputs×h×w to logits B×19×h×w.

    Args:
        summed: how many of the four are; the authors of AdaptSegNet return within their loop, after the second.
    """

    def __init__(self, inputs: int, summed: int = len(RATES)) -> None:
        super().__init__()
        self.conv2d_list = nn.ModuleList(nn.Conv2d(inputs, CLASSES, 3, padding=rate, dilation=rate) for rate in RATES)
        self.summed = summed

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = sum(classifier(x) for classifier in self.conv2d_list[: self.summed])
        return logits


class DeepLabV2(ResNet):
    """Image B×3×H×W to logits B×19×(H/8+1)×(W/8+1).

    Args:
        heads: channels that the heads `layer5` … see; the last one is run, the one before it is for training.
        summed: see `DilatedSum`.
    """

    def __init__(self, heads: Sequence[int], summed: int = len(RATES)) -> None:
        super().__init__(101, output_stride=8, ceil_pool=True, dilate_first=True, stride_on_first=True)
        self.names = [f"layer{number}" for number in range(5, 5 + len(heads))]
        for name, inputs in zip(self.names, heads, strict=True):
            self.add_module(name, DilatedSum(inputs, summed))

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = self.get_submodule(self.names[-1])(self.stages(image)[-1])
        return logits


CAFFE = Preprocessing(
    mean=(104.00698793, 116.66876762, 122.67891434),
    std=(1.0, 1.0, 1.0),
    value_range=255.0,
    bgr=True,
    align_corners=True,
)
ONE, TWO = STAGE_CHANNELS[3:], STAGE_CHANNELS[2:]
_entry = partial(
    Entry,
    family="DeepLabv2",
    size=(1024, 512),
    facts=AdaptationFacts(frozen_affine=True),
)

ENTRIES = (
    *(
        _entry(
            name=f"adaptsegnet:{form}",
            build=partial(DeepLabV2, heads, 2),
            source="Tsai et al., AdaptSegNet, CVPR 2018; github.com/wasidennis/AdaptSegNet",
            licence="non-commercial research",
            preprocessing=CAFFE,
            file=file,
            publisher="github.com/wasidennis/AdaptSegNet, links in its README",
            fixture=f"adaptsegnet/deeplab_{form}",
        )
        for form, heads, file in (("multi", TWO, "GTA2Cityscapes_multi-ed35151c.pth"), ("single", ONE, None))
    ),
    _entry(
        name="advent:deeplabv2",
        build=partial(DeepLabV2, TWO),
        source="Vu et al., ADVENT, CVPR 2019; github.com/valeoai/ADVENT",
        licence="Apache-2.0",
        preprocessing=CAFFE,
        file="gta2cityscapes_advent.pth",
        publisher="github.com/valeoai/ADVENT, its releases",
        fixture="advent/deeplabv2",
    ),
    _entry(
        name="bdl:deeplabv2",
        build=partial(DeepLabV2, ONE),
        source="Li et al., Bidirectional Learning, CVPR 2019; github.com/liyunsheng13/BDL",
        licence="MIT",
        preprocessing=replace(CAFFE, probabilities=True),
        publisher="github.com/liyunsheng13/BDL, link GTA5_deeplab in its README",
        fixture="bdl/deeplab",
    ),
)
