"""mmseg's networks: an encoder, a decode head on some of its features, and an auxiliary head that is not run."""

from collections.abc import Sequence

from torch import Tensor, nn

from allweather.models.nets.blocks.heads import FcnHead
from allweather.models.nets.blocks.resnet import STAGE_CHANNELS, ResNet

CLASSES = 19
WIDTH = 512
AUXILIARY_WIDTH = 256


class EncoderDecoder(nn.Module):
    """RGB B×3×H×W, normalised, to the decode head's logits.

    Args:
        backbone: image to a list of features.
        decode_head: takes the features at `taps` as its arguments.
        auxiliary_inputs: channels that the auxiliary head, which training needs, would see.
    """

    def __init__(
        self, backbone: nn.Module, decode_head: nn.Module, auxiliary_inputs: int, taps: Sequence[int] = (-1,)
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head
        self.auxiliary_head = FcnHead(auxiliary_inputs, AUXILIARY_WIDTH, CLASSES)
        self.taps = taps

    def forward(self, image: Tensor) -> Tensor:
        features = self.backbone(image)
        logits: Tensor = self.decode_head(*(features[tap] for tap in self.taps))
        return logits


def on_resnet(depth: int, decode_head: nn.Module, taps: Sequence[int] = (-1,)) -> EncoderDecoder:
    """A head on a ResNet of output stride 8 with three 3×3 convolutions as stem (mmseg's ResNetV1c)."""
    backbone = ResNet(depth, output_stride=8, stem="sequential")
    return EncoderDecoder(backbone, decode_head, STAGE_CHANNELS[2], taps)
