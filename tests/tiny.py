"""Tiny networks and frames that many tests share."""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn

from allweather.classes import ClassSet
from allweather.models.segmenter import Segmenter
from allweather.session import Session

CLASSES = ClassSet("three", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
SIZE = (24, 32)


class ChannelsLayerNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class TinyNetwork(nn.Module):
    """Two convolutions, a pooled branch and one kind of norm layer."""

    def __init__(self, norm: type[nn.Module]):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), norm(8), nn.ReLU())
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), norm(8))
        self.head = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), norm(8), nn.ReLU(), nn.Conv2d(8, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.pooled(x))


def pixelwise(gain: float) -> Segmenter:
    """A network whose logits at each pixel are `gain` times its colour: a 1×1 convolution without preprocessing."""
    layer = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        layer.weight.copy_(gain * torch.eye(3)[:, :, None, None])
        layer.bias.zero_()
    return Segmenter.wrap(layer, classes=CLASSES, mean=(0, 0, 0), std=(1, 1, 1), name="pixelwise")


def tiny(norm: str) -> Segmenter:
    """A network of the caller's own, and PyTorch's random numbers from where its making leaves them."""
    made, random = _made(norm)
    torch.set_rng_state(random)
    return deepcopy(made)


@cache
def _made(norm: str) -> tuple[Segmenter, Tensor]:
    """The network, made once for all tests of a process, and the random state after it."""
    layer = {"batchnorm": nn.BatchNorm2d, "layernorm": ChannelsLayerNorm, "none": nn.Identity}[norm]
    torch.manual_seed(3)
    network = TinyNetwork(layer)
    network.train()
    for _ in range(3):
        network(torch.rand(4, 3, *SIZE))
    return Segmenter.wrap(network.eval(), classes=CLASSES, name=f"tiny-{norm}"), torch.get_rng_state()


def frames(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, *SIZE, generator=generator)


def equal_in(part: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> bool:
    """Whether every tensor of `part` is that of its name in `whole`."""
    return all(torch.equal(value, whole[name]) for name, value in part.items())


def moved_names(session: Session, source: Segmenter) -> set[str]:
    now, before = session.model.state_dict(), source.state_dict()
    assert now.keys() == before.keys()
    return {name.removeprefix("network.") for name in now if not torch.equal(now[name], before[name])}
