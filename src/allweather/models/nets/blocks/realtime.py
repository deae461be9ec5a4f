"""What the networks of one collection of real-time models share: units, the last step, and the catalogue entry."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.entry import Entry
from allweather.models.nets.blocks.conv import numbered_unit
from allweather.models.segmenter import Preprocessing

CLASSES = 19


def classifier(inputs: int) -> nn.Conv2d:
    """The 1×1 convolution to the logits, without bias."""
    return nn.Conv2d(inputs, CLASSES, 1, bias=False)


def enlarge(logits: Tensor, image: Tensor) -> Tensor:
    """Logits B×19×h×w at the height and width of the image."""
    return functional.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=True)


class DownUnit(nn.Module):
    """Half the height and width: B×inputs×H×W, H and W even, to B×outputs×H/2×W/2.

    A strided 3×3 unit, under `conv`, and behind its channels the input's, max-pooled. The authors of MiniNet-v2 and
    FDDWNet put BatchNorm and the activation behind both.
    """

    def __init__(self, inputs: int, outputs: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv = numbered_unit(inputs, outputs - inputs, 3, stride=2, activation=activation)
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.pool(x)], 1)


class UpUnit(nn.Module):
    """Twice the height and width: B×inputs×H×W to B×outputs×2H×2W.

    A transposed 3×3 convolution, BatchNorm and an activation, under `up_conv`.
    """

    def __init__(self, inputs: int, outputs: int, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        transposed = nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1)
        self.up_conv = nn.Sequential(transposed, nn.BatchNorm2d(outputs), activation())

    def forward(self, x: Tensor) -> Tensor:
        return self.up_conv(x)


def realtime_entry(name: str, build: Callable[[], nn.Module], paper: str, size_multiple: int) -> Entry:
    """An entry of zh320's collection, whose networks differ from those of the papers' authors in layers and keys.

    Args:
        name: of the architecture, such as `CGNet`.
        paper: where it was published.
        size_multiple: what height and width must be multiples of.
    """
    return Entry(
        name=f"realtime:{name.lower()}",
        family=name,
        build=build,
        source=f"{paper}; github.com/zh320/realtime-semantic-segmentation-pytorch, a variant of its own",
        licence="Apache-2.0",
        preprocessing=Preprocessing(size_multiple=size_multiple, align_corners=True),
        file=f"{name.lower()}.pth",
        publisher="github.com/zh320/realtime-semantic-segmentation-pytorch, release v1.0",
        nesting="state_dict",
        fixture=f"zh320/{name.lower()}",
    )
