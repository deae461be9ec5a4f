"""Grouped convolutions in a session's copy: the values and gradients of PyTorch's, whether or not weights move."""

import pytest
import torch
from quiet import gradients, quieted, sessions_copy
from torch import nn

from allweather.models.convolution import QuietConv2d, _OfInput
from allweather.models.quiet import adopt_quiet_layers

CASES = (  # channels in and out, kernel, and what else the layer is given
    (6, 6, 3, {"groups": 6, "padding": 1}),
    (6, 6, 3, {"groups": 6, "padding": 4, "dilation": 4}),
    (6, 6, 3, {"groups": 6, "padding": 2, "dilation": 2, "stride": 2}),
    (8, 4, (3, 1), {"groups": 2, "padding": (1, 0), "bias": False}),
    (4, 8, 3, {"groups": 2}),
    (4, 8, (1, 5), {"groups": 4, "padding": (0, 2), "stride": (1, 3), "dilation": (1, 2)}),
    (6, 6, 1, {"groups": 3}),
)
THEIRS = (  # PyTorch's own backward pass
    (6, 6, 3, {"groups": 6, "padding": 1, "stride": 2}),
    (6, 6, 3, {"groups": 6, "padding": "same"}),
    (6, 6, 3, {"groups": 6, "padding": 1, "padding_mode": "reflect"}),
    (6, 6, 1, {"groups": 6, "padding": 1}),
)


def pair(before: int, after: int, kernel: int, more: dict, moves: bool = False) -> tuple[nn.Conv2d, nn.Conv2d]:
    """PyTorch's layer and the session's, with the same weights."""
    torch.manual_seed(0)
    theirs = nn.Conv2d(before, after, kernel, **more).requires_grad_(moves)
    return theirs, quieted(theirs, QuietConv2d)


@pytest.mark.parametrize("case", CASES + THEIRS, ids=str)
@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("size", [(11, 14), (12, 13)], ids=str)
def test_it_equals_pytorchs(case: tuple, moves: bool, size: tuple[int, int]):
    theirs, ours = pair(*case, moves)
    values = torch.randn(2, theirs.in_channels, *size)
    for mine, other in zip(gradients(ours, values), gradients(theirs, values), strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or torch.allclose(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [*CASES, *THEIRS], ids=str)
def test_it_goes_forwards_where_that_is_sooner(case: tuple):
    _, ours = pair(*case)
    output = ours(torch.randn(1, ours.in_channels, 11, 14).requires_grad_())
    assert isinstance(output.grad_fn, _OfInput._backward_cls) == (case in CASES)


def test_a_bias_that_moves_gets_its_gradient():
    theirs, ours = pair(6, 6, 3, {"groups": 6, "padding": 1})
    values = torch.randn(1, 6, 8, 8)
    for layer in (theirs, ours):
        layer.bias.requires_grad_()
        gradients(layer, values)
    assert torch.allclose(ours.bias.grad, theirs.bias.grad)


def test_it_takes_bfloat16_and_autocast():
    theirs, ours = pair(6, 6, 3, {"groups": 6, "padding": 2, "dilation": 2})
    values = torch.randn(1, 6, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = [gradients(layer, values) for layer in (ours, theirs)]
    halves = [gradients(layer.bfloat16(), values.bfloat16()) for layer in (ours, theirs)]
    for found in (mixed, halves):
        for mine, other in zip(*found, strict=True):
            assert mine is None or mine.dtype == other.dtype
            assert mine is None or torch.allclose(mine, other, rtol=2e-2, atol=5e-2)


def test_the_owners_network_keeps_its_layers():
    network = nn.Sequential(nn.Conv2d(3, 18, 1), nn.Conv2d(18, 19 * 18, 3, groups=18, padding=1), nn.Conv2d(342, 19, 1))
    copy = sessions_copy(network)
    assert [type(layer) for layer in network].count(QuietConv2d) == 0
    assert [type(layer) for layer in copy.modules()].count(QuietConv2d) == 1


def test_a_class_of_its_own_stays():
    class Other(nn.Conv2d):
        pass

    network = nn.Sequential(Other(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1))
    adopt_quiet_layers(network)
    assert [type(layer) for layer in network] == [Other, nn.Conv2d]
