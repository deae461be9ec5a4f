"""The norm layers of a network: which layers count as such, and how many of each kind there are."""

from collections import Counter

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from allweather.models.nets.blocks.norms import SwitchableWhitening

NORM_LAYERS = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, SwitchableWhitening)


def count_norms(network: nn.Module) -> dict[str, int]:
    """How many norm layers of each class `network` has."""
    kinds = Counter(type(module).__name__ for module in network.modules() if isinstance(module, NORM_LAYERS))
    return dict(sorted(kinds.items()))
