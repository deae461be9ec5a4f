"""Convolution, BatchNorm and activation under mmseg's parameter names, and its plain convolutional head."""

from collections import OrderedDict

from torch import Tensor, nn


class ConvUnit(nn.Sequential):
    """Convolution without bias, BatchNorm and an activation, under `conv` and `bn`; keeps the size at stride 1.

    Args:
        activation: None leaves it out.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
        eps: float = 1e-5,
    ) -> None:
        padding = dilation * (kernel // 2)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False),
            bn=nn.BatchNorm2d(outputs, eps),
        )
        if activation is not None:
            layers["activate"] = activation()
        super().__init__(layers)


class FcnHead(nn.Module):
    """3×3 units and a 1×1 classifier: features B×inputs×h×w to logits B×classes×h×w.

    Args:
        width: channels of each unit.
        units: how many.
        dropout: before the classifier, while training.
    """

    def __init__(self, inputs: int, width: int, classes: int, *, units: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(ConvUnit(width if unit else inputs, width, 3) for unit in range(units)))
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.dropout(self.convs(x)))
