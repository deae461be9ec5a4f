"""What tests of layers that a session computes at less cost share."""

import pickle
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from allweather import CITYSCAPES, Segmenter
from allweather.models.copying import independent_copy
from allweather.models.quiet import adopt_quiet_layers


def gradients(layer: nn.Module, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Output, and the gradients of the input and of the weights under uneven weights."""
    values = values.detach().clone().requires_grad_()
    output = layer(values)
    (output.float() * torch.linspace(-1, 2, output.numel()).view_as(output)).sum().backward()
    assert values.grad is not None
    return output.detach(), values.grad, layer.weight.grad


def quieted(layer: nn.Module, kind: type[nn.Module]) -> Any:
    """The session's layer in place of PyTorch's, with the same weights."""
    network = nn.Sequential(deepcopy(layer))
    adopt_quiet_layers(network)
    assert type(network[0]) is kind
    return network[0]


def sessions_copy(network: nn.Module) -> nn.Module:
    """The network of a session's copy, which has the same keys and predicts the same, pickled as for a fleet too."""
    copy = independent_copy(Segmenter.wrap(network, classes=CITYSCAPES)).network
    assert copy.state_dict().keys() == network.state_dict().keys()
    image = torch.rand(1, 3, 4, 4)
    assert torch.equal(pickle.loads(pickle.dumps(copy))(image), network(image))
    return copy
