"""PyTorch's modes around what a session computes: its own, whatever the caller's are."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def own_modes(device: torch.device) -> Iterator[None]:
    """Inside, gradients are on, and inference mode and autocast off, on the CPU and on the device."""
    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        for kind in sorted({"cpu", device.type}):
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def half_precision(device: torch.device, enabled: bool) -> Iterator[None]:
    """Inside, autocast to bfloat16 where `enabled`, and none where not.

    Autocast forgets its casts of weights with the outermost block, which may be the caller's. Weights move between two
    of these blocks, so each begins and ends without any.
    """
    torch.clear_autocast_cache()
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
            yield
    finally:
        torch.clear_autocast_cache()
