"""Mixing BatchNorm's statistics with each image's own, as a hook before an ordinary layer."""

import sys
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from allweather.errors import NetworkError
from allweather.methods.normalization import TestTimeStatistics
from allweather.models.norm_layers import input_of


class ImageStatistics:
    """Moves a layer's input so that the layer, with its own running statistics, normalises by mixed ones.

    The mixture is (1 − share)·running + share·image for mean and variance, of each image of a batch on its own. The
    layer stays what it is, forward, buffers and class; a handful of standard operations comes before it, so that a
    graph has nothing of this package in it. An image of one value per channel passes as it is.

    Args:
        share: of the image's statistics, in [0, 1].
    """

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(
        self, layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        values, again = input_of(layer, arguments, named)
        return again(self.moved(layer, values))

    def moved(self, layer: nn.Module, values: Tensor) -> Tensor:
        """What the layer is to see: B×C×… as it came."""
        axes = list(range(2, values.ndim)) or [0]  # tokens of one picture have no axes of their own
        if all(isinstance(values.shape[axis], int) and values.shape[axis] == 1 for axis in axes):
            return values
        shape = (1, -1, *(1 for _ in values.shape[2:]))
        mean, var = (cast(Tensor, getattr(layer, f"running_{name}")).view(shape) for name in ("mean", "var"))
        own = values.to(mean.dtype).mean(axes, keepdim=True)  # half precision under an autocast of the network's own
        spread = (values - own).square().mean(axes, keepdim=True)
        eps = cast(float, getattr(layer, "eps", 1e-5))
        gain = torch.sqrt((var + eps) / (torch.lerp(var, spread, self.share) + eps))
        return (values - torch.lerp(mean, own, self.share)) * gain + mean


def attach(shares: Sequence[tuple[nn.Module, float]]) -> None:
    """Sets the hook on each layer, with the share of the image's statistics.

    What torch.compile made of a network without them would be taken for one with them, so all it made is made anew.
    """
    for layer, share in shares:
        layer.register_forward_pre_hook(ImageStatistics(share), with_kwargs=True)
    if shares and "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def shares_of(network: nn.Module) -> dict[str, float]:
    """The share of each layer that has the hook, by the layer's name."""
    return {
        name: hook.share
        for name, layer in network.named_modules()
        for hook in layer._forward_pre_hooks.values()
        if isinstance(hook, ImageStatistics)
    }


def check_unmixed(network: nn.Module, asker: str, advice: str) -> None:
    """Refuses a network that has such hooks, where others would come before the same layers.

    Args:
        asker: what would mix statistics in, for the message.
        advice: what to do instead.

    Raises:
        NetworkError: naming the first layer.
    """
    if shares := shares_of(network):
        raise NetworkError(
            f"{asker} would mix each image's statistics in twice: {next(iter(shares)) or type(network).__name__} has a "
            f"hook that does, as Session.network() and apply_delta leave it. {advice}"
        )


def mixed_layers(network: nn.Module) -> dict[str, tuple[TestTimeStatistics, float]]:
    """The layers of a session's network that take statistics of the image, by name, each with the image's share."""
    return {
        name: (layer, 1.0 if layer.mode == "batch" else layer.share)
        for name, layer in network.named_modules()
        if isinstance(layer, TestTimeStatistics) and layer.mode in ("mixed", "batch")
    }
