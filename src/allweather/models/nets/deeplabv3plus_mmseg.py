"""DeepLabv3+ on ResNet-101 at output stride 8, in mmseg's form: separable convolutions in pyramid and decoder.

After Chen et al., DeepLabv3+, ECCV 2018, with the parameter names of mmsegmentation.
"""

from torch import nn

from allweather.models.entry import mmseg_entry
from allweather.models.nets.blocks.encoder_decoder import CLASSES, WIDTH, on_resnet
from allweather.models.nets.blocks.heads import DetailedAsppHead
from allweather.models.nets.blocks.resnet import STAGE_CHANNELS


def _build() -> nn.Module:
    return on_resnet(101, DetailedAsppHead(STAGE_CHANNELS[0], STAGE_CHANNELS[3], WIDTH, CLASSES), (0, -1))


ENTRIES = (
    mmseg_entry(
        "Chen et al., DeepLabv3+, ECCV 2018",
        "deeplabv3plus_r101-d8_512x1024_80k_cityscapes_20200606_114143-068fcfe9",
        name="deeplabv3plus:r101-mmseg",
        family="DeepLabv3+",
        build=_build,
        fixture="mmseg/deeplabv3plus_r101",
    ),
)
