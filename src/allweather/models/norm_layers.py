"""The norm layers of a network: which modules count as such, how many there are of each kind, what they are given."""

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from allweather.errors import NetworkError
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


def input_of(
    layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Tensor, Callable[[Tensor], tuple[tuple[Any, ...], dict[str, Any]]]]:
    """What a BatchNorm normalises of the arguments of a call, B×C×…, and how they are with another in its place.

    Raises:
        NetworkError: where none has the layer's channels, as where its forward moves axes first.
    """
    values, mean = [*given, *named.values()], cast(Tensor | None, layer.running_mean)
    channels = layer.num_features if mean is None else len(mean)
    shapes = [(at, tuple(value.shape)) for at, value in enumerate(values) if isinstance(value, Tensor)]
    place = next((at for at, shape in shapes if len(shape) > 1 and shape[1] == channels), None)
    if place is None:
        came = ", ".join("×".join(map(str, shape)) for _, shape in shapes) or "no tensor"
        name = type(layer).__name__.removeprefix("TestTime")
        raise NetworkError(
            f"{name}: expected an input B×{channels}×… to take a picture's statistics of, got {came}. Leave it the "
            "checkpoint's, bn=source; in an export, statistics='stream'."
        )

    def again(input: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        changed = [*values[:place], input, *values[place + 1 :]]
        return tuple(changed[: len(given)]), dict(zip(named, changed[len(given) :], strict=True))

    return values[place], again


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
