"""Layers of a session's copy that compute the same with a cheaper gradient: which become what, and the way back."""

from torch import nn

from allweather.models.convolution import QuietConv2d
from allweather.models.prelu import QuietPReLU

QUIET: dict[type[nn.Module], type[nn.Module]] = {nn.PReLU: QuietPReLU, nn.Conv2d: QuietConv2d}


def adopt_quiet_layers(network: nn.Module) -> None:
    """Gives PyTorch's layers the class with the cheaper gradient where there is one; parameters and names stay."""
    for module in network.modules():
        if type(module) in QUIET and getattr(module, "groups", 0) != 1:  # one group's gradient is quick anyhow
            module.__class__ = QUIET[type(module)]


def give_back_layer(module: nn.Module) -> None:
    """PyTorch's own class again, of a layer that `adopt_quiet_layers` took."""
    for own, quiet in QUIET.items():
        if type(module) is quiet:
            module.__class__ = own
