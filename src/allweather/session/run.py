"""The iterations on one batch as far as they came, and numbers on their way from the device to the host."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Run:
    """The iterations on one batch, as far as they came.

    Attributes:
        first: logits B×C×H×W before any update.
        last: logits of the latest forward pass.
        current: whether `last` is what the network as it stands would predict.
        losses, watched: as in `Result`.
        updates: made so far.
        stop: as in `Result`.
        failure: why the batch must leave no trace.
        unadapted: the source network's logits, where they were made before adapting.
        finite: whether the latest gradient was finite, where the answer has not been read yet.
    """

    first: Tensor | None = None
    last: Tensor | None = None
    current: bool = True
    losses: list[float] = field(default_factory=list)
    watched: list[float] = field(default_factory=list)
    updates: int = 0
    stop: str = "none"
    failure: str | None = None
    unadapted: Tensor | None = None
    finite: Tensor | None = None

    def refuse_step(self) -> None:
        """The latest update came from a gradient that is not finite; what came after it counts for nothing."""
        self.failure, self.finite = "the gradient is not finite", None
        self.updates -= 1
        self.stop = "cap" if self.updates else "none"


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
