"""GCNet: a global context, added to every pixel, between two convolutions of the head; in mmseg's form.

Written from Cao et al., GCNet, ICCV Workshops 2019, with the parameter names of mmsegmentation.
"""

from functools import partial

from torch import Tensor, nn

from allweather.models.entry import mmseg_entry
from allweather.models.nets.blocks.encoder_decoder import CLASSES, WIDTH, on_resnet
from allweather.models.nets.blocks.heads import FcnHead
from allweather.models.nets.blocks.resnet import STAGE_CHANNELS

REDUCTION = 4


class GlobalContext(nn.Module):
    """Adds to every pixel a transform of the features' attention-weighted mean: B×C×h×w to the same (paper Eq. 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        attention = self.conv_mask(x).flatten(2).softmax(2)  # B×1×hw
        context = x.flatten(2) @ attention.transpose(1, 2)  # B×C×1
        added: Tensor = self.channel_add_conv(context[..., None])
        return x + added


class GcHead(FcnHead):
    """A convolutional head with the global context after its first unit."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, WIDTH, CLASSES, units=2, concatenate=True)
        self.gc_block = GlobalContext(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.convs
        return self.classify(self.join(x, second(self.gc_block(first(x)))))


def _build(depth: int) -> nn.Module:
    return on_resnet(depth, GcHead(STAGE_CHANNELS[3]))


FILES = {50: "20200618_074450-ef8f069b", 101: "20200618_074450-778ebf69"}
ENTRIES = tuple(
    mmseg_entry(
        "Cao et al., GCNet, ICCV Workshops 2019",
        f"gcnet_r{depth}-d8_512x1024_80k_cityscapes_{identity}",
        name=f"gcnet:r{depth}",
        family="GCNet",
        build=partial(_build, depth),
        fixture=f"mmseg/gcnet_r{depth}",
    )
    for depth, identity in FILES.items()
)
