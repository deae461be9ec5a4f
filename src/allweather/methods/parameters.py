"""Which parameters of a network may move: all, the affine ones of norm layers, the last bias, or a name pattern."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from allweather.errors import SettingsError
from allweather.models.norm_layers import is_norm_layer
from allweather.models.segmenter import Segmenter

NORM_AFFINE = ("norm-affine", "norm-affine-late")
LOGIT_BIAS = "logit-bias"


def select_parameters(model: Segmenter, which: str, method: str) -> dict[str, nn.Parameter]:
    """The floating-point parameters that `which` names, gradient on for them and off for all others.

    Args:
        model: the session's copy.
        which: `all`, `norm-affine` (weights and biases of normalisation layers), `norm-affine-late` (those of the later
            half of them, in the order in which the network holds them), `logit-bias` (one number per logit: the bias of
            each convolution or linear layer that gives as many channels as the network has logits, where no norm layer
            takes it away again), or an fnmatch pattern over the network's parameter names such as `layer4.*`.
        method: who asks, for the message.

    Raises:
        SettingsError: when nothing matches.
    """
    network = model.network
    if which in NORM_AFFINE:
        layers = [_affine(prefix, module) for prefix, module in network.named_modules() if is_norm_layer(module)]
        layers = [names for names in layers if names]
        wanted = set[str]().union(*layers[len(layers) // 2 if which == "norm-affine-late" else 0 :])
    elif which == LOGIT_BIAS:
        wanted = _logit_biases(model)
    else:
        pattern = "*" if which == "all" else which
        wanted = {name for name, _ in network.named_parameters() if fnmatchcase(name, pattern)}
    chosen = {}
    for name, parameter in network.named_parameters():
        moves = name in wanted and parameter.is_floating_point()
        parameter.requires_grad_(moves)
        if moves:
            chosen[name] = parameter
    if not chosen:
        raise SettingsError(_nothing(model, which, method))
    return chosen


def with_parameters(model: Segmenter, parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Logits of the network with other values in place of the parameters of those names; differentiable by them."""
    module = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    own = dict(module.network.named_parameters())
    values = {id(own[name]): value for name, value in parameters.items()}
    # each place once: torch would put a replaced value back where one module has two names
    places = {
        f"{prefix}.{name}": values[id(parameter)]
        for prefix, part in module.network.named_modules(prefix="network")
        for name, parameter in part._parameters.items()
        if id(parameter) in values
    }
    return cast(Tensor, torch.func.functional_call(module, places, (images,), tie_weights=False))


@contextmanager
def having(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, tensors have the values of those names; nothing is copied. A gradient must be taken there too."""
    kept = {name: tensor.data for name, tensor in tensors.items()}
    try:
        _have(tensors, values)
        yield
    finally:
        _have(tensors, kept)


def _have(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.data = values[name].detach()
    torch.clear_autocast_cache()  # of casts by tensor, not by value


def values_of(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What the parameters hold now, by name: copies that no update and no gradient reaches."""
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def _affine(prefix: str, layer: nn.Module) -> set[str]:
    """The names of a norm layer's own parameters within the network."""
    return {f"{prefix}.{name}" if prefix else name for name, _ in layer.named_parameters(recurse=False)}


def _logit_biases(model: Segmenter) -> set[str]:
    """The names of the biases of layers that give the logits.

    An auxiliary head's are among them, which no prediction shows; of branches that are summed each has its own. A layer
    that the network holds right before a norm layer has none: what is added to all pixels, the norm takes away.
    """
    logits = len(model.classes) + model.extra_logits
    leaves = [each for each in model.network.named_modules() if next(each[1].children(), None) is None]
    followers = [*(layer for _, layer in leaves[1:]), None]
    return {
        f"{prefix}.bias" if prefix else "bias"
        for (prefix, layer), following in zip(leaves, followers, strict=True)
        if isinstance(layer, _ConvNd | nn.Linear) and layer.bias is not None and len(layer.bias) == logits
        if following is None or not _normalises(following, logits)
    }


def _normalises(layer: nn.Module, channels: int) -> bool:
    sizes = {tensor.numel() for tensor in (*layer.parameters(), *layer.buffers())}
    return is_norm_layer(layer) and (channels in sizes or not sizes)


def _nothing(model: Segmenter, which: str, method: str) -> str:
    if which in NORM_AFFINE:
        return (
            f"{method} moves the affine parameters of normalisation layers, and {model.name} has none. "
            "Choose what may move instead, e.g. parameters=all."
        )
    if which == LOGIT_BIAS:
        logits = len(model.classes) + model.extra_logits
        return (
            f"{method}: parameters='{LOGIT_BIAS}' moves the bias of the layer that gives the logits, and no convolution"
            f" or linear layer of {model.name} has {logits} biases with no norm layer behind it. Choose what may move "
            "instead, e.g. parameters=norm-affine."
        )
    names = [name for name, parameter in model.network.named_parameters() if parameter.is_floating_point()]
    examples = ", ".join(names[:3])
    known = ", ".join(f"'{name}'" for name in ("all", *NORM_AFFINE, LOGIT_BIAS))
    return (
        f"{method}: parameters='{which}' matches nothing in {model.name}. Expected {known}, "
        f"or a pattern over parameter names such as: {examples or '(none of floating point)'}."
    )
