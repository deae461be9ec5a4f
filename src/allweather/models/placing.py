"""Where a network lies, and how it comes to lie on another device."""

from typing import TypeVar

import torch
from torch import nn

from allweather.errors import SettingsError, first_line

CPU = torch.device("cpu")
Network = TypeVar("Network", bound=nn.Module)
_NOT_HERE = (RuntimeError, AssertionError, TypeError)  # what torch raises for a device that cannot be used


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
        _compute(device)
        return model.to(torch.device(device))
    except _NOT_HERE as error:
        raise SettingsError(f"{what} {device}: {first_line(error)}. Choose another device, such as cpu.") from error


def can_compute(device: str) -> bool:
    """Whether there is such a device, on which something can be computed."""
    try:
        _compute(device)
    except _NOT_HERE:
        return False
    return True


def _compute(device: torch.device | str) -> None:
    """Fails where nothing can be computed, such as meta."""
    torch.zeros(1, device=device).item()
