"""What each of several layers gives, one after the other."""

from collections.abc import Iterable

from torch import Tensor, nn


def outputs_of(layers: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """The output of every layer, each of which takes that of the one before."""
    outputs = []
    for layer in layers:
        x = layer(x)
        outputs.append(x)
    return outputs
