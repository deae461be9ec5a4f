"""Numbers on their way from the device to the host, while the device goes on computing."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Reading:
    """Numbers on their way to the host, while the device goes on with what is queued after them.

    On CUDA they are copied to pinned memory behind the kernels queued so far, and `values` waits for that copy
    alone; elsewhere they are there at once.
    """

    def __init__(self, numbers: Sequence[Tensor]) -> None:
        device = numbers[0].device
        self._numbers = torch.stack([number.detach().to(device, torch.float32) for number in numbers])
        self._arrived: torch.cuda.Event | None = None
        if device.type == "cuda":
            host = torch.empty(len(numbers), pin_memory=True)
            self._numbers = host.copy_(self._numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(device))

    def values(self) -> list[float]:
        """The numbers, in order."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values: list[float] = self._numbers.tolist()
        return values


def queues(device: torch.device) -> bool:
    """Whether work on the device is queued, so that reading a number of it makes the host wait."""
    return device.type == "cuda"
