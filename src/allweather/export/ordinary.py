"""A session's network in ordinary layers again: the user's own classes, with the adapted values."""

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from allweather.export.deployment import tensors_of
from allweather.export.image_statistics import attach, mixed_layers
from allweather.export.trial import tried
from allweather.methods.normalization import TestTimeStatistics
from allweather.models.copying import AdoptedBatchNorm
from allweather.models.deep_copy import deep_copy
from allweather.models.quiet import give_back_layer
from allweather.models.segmenter import Segmenter, own_place

Statistics = Literal["image", "stream"]
Averages = Mapping[str, tuple[Tensor, Tensor]]
# of adopted layers
LEFT = ("mode", "share", "moving", "parts", "taken", "reached", "given", "seen", "notes", "calls", "fixed")


@torch.no_grad()
def ordinary(
    model: Segmenter,
    values: Mapping[str, Tensor],
    statistics: Statistics,
    averages: Averages,
    size: tuple[int, int] | None = None,
) -> Segmenter:
    """A copy of a session's segmenter in layers of the user's own classes, on the CPU and in evaluation mode.

    Args:
        model: the session's own copy.
        values: of parameters that are to replace the copy's, by name within the network.
        statistics: `image` keeps the mixing, as hooks before BatchNorm layers; `stream` writes the mixture with the
            averages into the layers' buffers.
        averages: mean and variance of the stream by layer; a layer without any keeps its own.
        size: (width, height) of a picture that both networks are compared on, for `image`; None for one of any size.

    Raises:
        NetworkError: for `image` where hooks cannot make the network predict what the session does.
    """
    copy = deep_copy(model, {}).cpu().eval()
    parameters = dict(copy.network.named_parameters())
    for name, value in values.items():
        parameters[name].copy_(value)
    mixed = mixed_layers(copy.network)
    trial = tried(copy, size) if mixed and statistics == "image" else None
    if statistics == "image":
        attach([each for name, each in mixed.items() if trial is None or trial.mixes(name)])
    for name, (layer, share) in mixed.items():
        if name in averages:
            for buffer, average in zip((layer.running_mean, layer.running_var), averages[name], strict=True):
                cast(Tensor, buffer).lerp_(average.to(cast(Tensor, buffer)), share)
    for module in copy.modules():
        _give_back(module)
    for parameter in copy.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    copy = copy.to(memory_format=torch.contiguous_format)
    if trial is not None:
        trial.check(copy)
    return copy


def own_keys(model: Segmenter, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A segmenter's state dict as the own network's, tensors alone; what passes have registered since is not in it."""
    network, prefix = own_place(model)
    return {key: state[prefix + key] for key in tensors_of(network) if prefix + key in state}


def _give_back(module: nn.Module) -> None:
    """The layer's own class, and its affine values as buffers where they were."""
    give_back_layer(module)
    if not isinstance(module, (TestTimeStatistics, AdoptedBatchNorm)):
        return
    if isinstance(module, TestTimeStatistics):
        module.__class__ = type(module).__mro__[2]  # the class that a session adopted
    if isinstance(module, AdoptedBatchNorm):
        for name in module.fixed:
            value = module._parameters.pop(name, None)
            module._buffers[name] = module._buffers.pop(name) if value is None else value.detach()
        module.__class__ = module.own  # type: ignore[assignment]
    for name in LEFT:
        module.__dict__.pop(name, None)
