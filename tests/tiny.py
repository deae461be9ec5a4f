"""Tiny networks and frames that many tests share."""

import copy
import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from allweather import ClassSet, Segmenter, Session

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


class Remembers(nn.Module):
    """A network that keeps an average of what it sees in a buffer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.lerp_(x.detach().mean((0, 2, 3)), 0.5)
        return self.head(self.norm(x) + self.seen.view(1, -1, 1, 1))


def pixelwise(gain: float) -> Segmenter:
    """A network whose logits at each pixel are `gain` times its colour: a 1×1 convolution without preprocessing."""
    layer = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        layer.weight.copy_(gain * torch.eye(3)[:, :, None, None])
        layer.bias.zero_()
    return Segmenter.wrap(layer, classes=CLASSES, mean=(0, 0, 0), std=(1, 1, 1), name="pixelwise")


def tiny(norm: str = "batchnorm") -> Segmenter:
    """A network of the caller's own, and PyTorch's random numbers from where its making leaves them."""
    made, random = _made(norm)
    torch.set_rng_state(random)
    return copy.deepcopy(made)


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


def other_weights() -> Segmenter:
    """The usual network but for one number."""
    model = tiny()
    with torch.no_grad():
        model.network.head[3].bias[0] += 1e-3
    return model


def seeded(seed: int = 0) -> torch.Generator:
    """Random numbers that are the same in every run, and leave PyTorch's own alone."""
    return torch.Generator().manual_seed(seed)


def frames(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=seeded(seed))


def equal_in(part: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> bool:
    """Whether every tensor of `part` is that of its name in `whole`."""
    return all(torch.equal(value, whole[name]) for name, value in part.items())


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and equal_in(one, other)


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its metadata."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


COPIES = copy.deepcopy, pickled  # two ways to copy a session


def moved_names(session: Session, source: Segmenter) -> set[str]:
    now, before = session.model.state_dict(), source.state_dict()
    assert now.keys() == before.keys()
    return {name.removeprefix("network.") for name in now if not torch.equal(now[name], before[name])}
