"""Around the passes of a session's network: what they show of it that its user is to know."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from allweather.errors import NetworkError, first_line

_OF_TYPES = re.compile(r"dtype|scalar type|\btype \(|Half|BFloat16", re.IGNORECASE)  # in what PyTorch says


class Passes:
    """Watches over the passes of a copy of a network, in float32.

    Args:
        network: as it came.
        name: of the network, in messages.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self._name, self._first = name, True
        found = {tensor.dtype for tensor in network.parameters() if tensor.is_floating_point()}
        self._came = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))

    @contextmanager
    def watched(self, device: torch.device) -> Iterator[None]:
        """Inside, the network runs; of the first pass the process's random numbers are looked at before and after.

        Raises:
            NetworkError: where a network that came in another precision casts by itself.
        """
        before = _random(device) if self._first else []
        try:
            yield
        except RuntimeError as error:
            if self._came in ("", "float32") or not _OF_TYPES.search(str(error)):
                raise
            raise NetworkError(
                f"{self._name}: the network does not run in float32 ({first_line(error)}). Its parameters came as "
                f"{self._came}, a session's copy has them in float32, and its forward casts to a type of its own. Cast "
                "to that of the weights, x.to(self.layer.weight.dtype) instead of x.half()."
            ) from error
        if self._first and not all(map(torch.equal, before, _random(device))):
            warnings.warn(
                f"{self._name}: random numbers of the process were drawn in a pass of the network: no two predictions "
                "are the same. In a forward of your own, functional.dropout needs training=self.training.",
                stacklevel=2,
            )
        self._first = False


def _random(device: torch.device) -> list[Tensor]:
    """The state of the process's random numbers, on the CPU and on the device."""
    own = torch.get_device_module(device).get_rng_state(device) if device.type in ("cuda", "xpu") else torch.empty(0)
    return [torch.get_rng_state(), own]
