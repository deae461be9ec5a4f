"""MobileNetV2 at output stride 8 under four decode heads, in mmseg's form.

After Sandler et al., MobileNetV2, CVPR 2018, with the parameter names of mmsegmentation.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from allweather.models.entry import mmseg_entry
from allweather.models.nets.blocks.conv import ConvUnit
from allweather.models.nets.blocks.encoder_decoder import CLASSES, WIDTH, EncoderDecoder
from allweather.models.nets.blocks.features import outputs_of
from allweather.models.nets.blocks.heads import AsppHead, DetailedAsppHead, FcnHead, PspHead
from allweather.models.nets.blocks.mobilenetv2 import CHANNELS, STEM_CHANNELS, inverted_stages

STRIDES = (1, 2, 2, 1, 1, 1, 1)
DILATIONS = (1, 1, 1, 2, 2, 4, 4)  # of the first block of each stage; the others have none
TAPS = (1, 2, 4, 6)  # stages whose output the heads may use


class MobileNetV2(nn.Module):
    """Image B×3×H×W to features with 24, 32, 96 and 320 channels, the first at a quarter of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvUnit(3, STEM_CHANNELS, 3, stride=2, activation=nn.ReLU6)
        stages = inverted_stages(STRIDES, DILATIONS, (1,) * 7, names="mmseg")
        for number, stage in enumerate(stages, 1):
            self.add_module(f"layer{number}", stage)

    def forward(self, image: Tensor) -> list[Tensor]:
        stages = (self.get_submodule(f"layer{number}") for number in range(1, len(CHANNELS) + 1))
        features = outputs_of(stages, self.conv1(image))
        return [features[tap] for tap in TAPS]


def _network(head: Callable[[], nn.Module], taps: tuple[int, ...] = (-1,)) -> EncoderDecoder:
    return EncoderDecoder(MobileNetV2(), head(), CHANNELS[TAPS[-2]], taps)


DEEP = CHANNELS[-1]
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "fcn": partial(_network, partial(FcnHead, DEEP, WIDTH, CLASSES, units=2, concatenate=True)),
    "pspnet": partial(_network, partial(PspHead, DEEP, WIDTH, CLASSES)),
    "deeplabv3": partial(_network, partial(AsppHead, DEEP, WIDTH, CLASSES)),
    "deeplabv3plus": partial(_network, partial(DetailedAsppHead, CHANNELS[TAPS[0]], DEEP, WIDTH, CLASSES), (0, -1)),
}
FILES = {
    "fcn": "mobilenet-v2-d8_fcn_4xb2-80k_cityscapes-512x1024-20230224_185436-13fef4ea",
    "pspnet": "pspnet_m-v2-d8_512x1024_80k_cityscapes_20200825_124817-19e81d51",
    "deeplabv3": "deeplabv3_m-v2-d8_512x1024_80k_cityscapes_20200825_124836-bef03590",
    "deeplabv3plus": "deeplabv3plus_m-v2-d8_512x1024_80k_cityscapes_20200825_124836-d256dd4b",
}
ENTRIES = tuple(
    mmseg_entry(
        "Sandler et al., MobileNetV2, CVPR 2018",
        FILES[head],
        name=f"mobilenetv2:{head}",
        family="MobileNetV2",
        build=build,
        fixture=f"mmseg/mnv2_{head}",
    )
    for head, build in NETWORKS.items()
)
