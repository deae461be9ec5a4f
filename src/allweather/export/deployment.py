"""What a session hands over to be written: the network in ordinary layers, its base, and what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from allweather.export.image_statistics import shares_of
from allweather.models.digest import digest
from allweather.models.segmenter import Segmenter, own_network


@dataclass(frozen=True, eq=False)
class Deployment:
    """An adapted network, ready to be written.

    Attributes:
        model: in ordinary layers, on the CPU, as `ordinary` gives it.
        base: the source network's state dict, under the own network's keys.
        about: what made it, ready for JSON: network, method, statistics, versions.
    """

    model: Segmenter
    base: Mapping[str, Tensor]
    about: Mapping[str, Any]

    @property
    def network(self) -> nn.Module:
        """The user's own network."""
        return own_network(self.model)

    def state(self) -> dict[str, Tensor]:
        """The tensors of the own network's state dict, no two in one memory."""
        return copies(tensors_of(self.network))

    def facts(self) -> dict[str, Any]:
        """What every file says of itself: `about`, the base's digest, and each layer's share of the image."""
        shares = shares_of(self.network)
        return {**self.about, "base": base_digest(self.base), **({"shares": shares} if shares else {})}


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network's state dict, which can also hold what `get_extra_state` gives or a quantized layer."""
    return {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}


def copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, no two in one memory."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}


def base_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict, whatever its floating-point precision: values as float32."""
    return digest(
        {name: value.to(torch.float32) if value.is_floating_point() else value for name, value in state.items()}
    )
