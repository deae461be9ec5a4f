"""Convolution, BatchNorm and PReLU in the combinations of the ESPNet family."""

from torch import Tensor, nn


class NormAct(nn.Module):
    """BatchNorm and PReLU."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(x))


class ConvNorm(nn.Module):
    """Convolution without bias and BatchNorm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class ConvNormAct(ConvNorm):
    """Convolution without bias, BatchNorm and PReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, eps: float = 1e-5
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups, eps)
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))
