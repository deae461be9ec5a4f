"""The norm layers of a network: which modules count as such, and how many of each kind there are."""

from collections import Counter

from torch import nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from allweather.models.nets.blocks.norms import SwitchableWhitening

NORM_LAYERS = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, SwitchableWhitening)
AFFINE = frozenset(("weight", "bias", "gamma", "beta", "scale", "shift", "g", "b"))
STATISTICS = ("running_mean", "running_var")


def is_norm_layer(module: nn.Module) -> bool:
    """Whether the module is a norm layer: of a known class, or of a class of its own that has their form.

    That form is BatchNorm's statistics, or a name with "norm" in it and no parameters but scales and shifts, one
    number per channel each. Layers that TorchScript compiled are told by it too, as their classes are gone.
    """
    if isinstance(module, NORM_LAYERS) or _holds_statistics(module):
        return True
    own = dict(module.named_parameters(recurse=False))
    if not own or not own.keys() <= AFFINE or len(own) != len(list(module.parameters())):
        return False
    per_channel = all(parameter.numel() == max(parameter.shape, default=1) for parameter in own.values())
    return per_channel and any("norm" in name.lower() for name in _class_names(module))


def has_own_statistics(module: nn.Module) -> bool:
    """Whether the module is a BatchNorm of a class that is not PyTorch's, such as one whose affine part is frozen.

    What only holds the tensors is none, as in an exported program, whose graph calls no layer.
    """
    if isinstance(module, NORM_LAYERS) or not _holds_statistics(module):
        return False
    return type(module).forward is not nn.Module.forward


def _holds_statistics(module: nn.Module) -> bool:
    if isinstance(module, ScriptModule):
        return False
    buffers = dict(module.named_buffers(recurse=False))
    mean, var = (buffers.get(name) for name in STATISTICS)
    return mean is not None and var is not None and mean.ndim == 1 and mean.shape == var.shape


def count_norms(network: nn.Module) -> dict[str, int]:
    """How many norm layers of each class `network` has."""
    kinds = Counter(_class_names(module)[0] for module in network.modules() if is_norm_layer(module))
    return dict(sorted(kinds.items()))


def _class_names(module: nn.Module) -> list[str]:
    if isinstance(module, ScriptModule):
        return [str(module.original_name)]
    return [kind.__name__ for kind in type(module).__mro__]
