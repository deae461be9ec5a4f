"""PReLU in a session's copy: the values and gradients of PyTorch's, whether or not its slopes move."""

import pytest
import torch
from quiet import gradients, quieted, sessions_copy
from tiny import seeded
from torch import Tensor, nn

from allweather.models.prelu import QuietPReLU
from allweather.models.quiet import adopt_quiet_layers

CASES = ((1, (2, 3, 5, 4)), (1, (3,)), (3, (2, 3, 5, 4)), (3, (2, 3)), (3, (2, 3, 7)))  # slopes, and an input's shape


def pair(channels: int = 3, moves: bool = False) -> tuple[nn.PReLU, nn.PReLU]:
    """PyTorch's layer and the session's, with the same slopes, one of them negative."""
    theirs = nn.PReLU(channels)
    with torch.no_grad():
        theirs.weight.copy_(torch.linspace(-0.5, 1.5, channels) if channels > 1 else torch.tensor([0.25]))
    theirs.requires_grad_(moves)
    return theirs, quieted(theirs, QuietPReLU)


@pytest.mark.parametrize(("channels", "shape"), CASES, ids=str)
@pytest.mark.parametrize("moves", [False, True])
def test_it_equals_pytorchs(channels: int, shape: tuple[int, ...], moves: bool):
    values = torch.randn(shape, generator=seeded())
    values.view(-1)[1] = 0.0  # where the slope is the lower one
    theirs, ours = (gradients(layer, values) for layer in pair(channels, moves))
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or torch.equal(mine, other) or torch.allclose(mine, other, rtol=1e-6)


def test_it_takes_bfloat16():
    values = torch.randn((1, 3, 6, 6), generator=seeded()).bfloat16()
    theirs, ours = pair()
    for mine, other in zip(gradients(ours.bfloat16(), values), gradients(theirs.bfloat16(), values), strict=True):
        assert mine is None or mine.dtype == other.dtype == torch.bfloat16
        assert mine is None or torch.allclose(mine, other, rtol=1e-2)


def test_the_owners_network_keeps_its_layers():
    network = nn.Sequential(nn.Conv2d(3, 19, 1), nn.PReLU(19))
    copy = sessions_copy(network)
    assert type(network[1]) is nn.PReLU
    assert [type(layer) for layer in copy.modules()].count(QuietPReLU) == 1


def test_a_class_of_its_own_stays():
    class Other(nn.PReLU):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    network = nn.Sequential(Other())
    adopt_quiet_layers(network)
    assert type(network[0]) is Other
