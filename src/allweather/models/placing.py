"""Where a network lies, and how it comes to lie on another device."""

from typing import TypeVar

import torch
from torch import nn

from allweather.errors import SettingsError, first_line

CPU = torch.device("cpu")
Network = TypeVar("Network", bound=nn.Module)


def device_of(module: nn.Module, otherwise: torch.device = CPU) -> torch.device:
    """The device of the module's parameters; `otherwise` for one without any."""
    return next((parameter.device for parameter in module.parameters()), otherwise)


def place(model: Network, device: torch.device | str, what: str) -> Network:
    """The network itself, moved to the device.

    Args:
        what: asked for the device, for the message.

    Raises:
        SettingsError: for a device that is not here, or where nothing can be computed.
    """
    try:
        torch.zeros(1, device=device).item()  # fails where nothing can be computed, such as meta
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError, TypeError) as error:
        raise SettingsError(f"{what} {device}: {first_line(error)}") from error
