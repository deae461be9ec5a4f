"""What tests of layers that a session computes at less cost share."""

import pickle

import torch
from torch import Tensor, nn

from allweather import CITYSCAPES, Segmenter
from allweather.models.copying import independent_copy


def gradients(layer: nn.Module, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Output, and the gradients of the input and of the weights under uneven weights."""
    values = values.detach().clone().requires_grad_()
    output = layer(values)
    (output.float() * torch.linspace(-1, 2, output.numel()).view_as(output)).sum().backward()
    assert values.grad is not None
    return output.detach(), values.grad, layer.weight.grad


def sessions_copy(network: nn.Module) -> nn.Module:
    """The network of a session's copy, which has the same keys and predicts the same, pickled as for a fleet too."""
    copy = independent_copy(Segmenter.wrap(network, classes=CITYSCAPES)).network
    assert copy.state_dict().keys() == network.state_dict().keys()
    image = torch.rand(1, 3, 4, 4)
    assert torch.equal(pickle.loads(pickle.dumps(copy))(image), network(image))
    return copy
