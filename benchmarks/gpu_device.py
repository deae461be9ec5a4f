"""Time, memory and host synchronisations of a device, on a GPU and, so that everything can be tried, on a CPU."""

import warnings
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch

SYNCHRONISES = "called a synchronizing"  # of the warning that torch gives in its debug mode


class Meter:
    """Measures on one device until a deadline.

    Args:
        device: where the work runs.
        until: `perf_counter` seconds after which no further repetition begins.
    """

    def __init__(self, device: torch.device, until: float = float("inf")) -> None:
        self.device, self.until = device, until

    @property
    def cuda(self) -> bool:
        """Whether the device runs beside the host."""
        return self.device.type == "cuda"

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return perf_counter() >= self.until

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """Of one run, from an idle device to an idle device."""
        self.wait()
        started = perf_counter()
        work()
        self.wait()
        return perf_counter() - started

    def times(self, work: Callable[[], object], warm: int, most: int, limit: float = 3.0) -> list[float]:
        """Seconds of each run after `warm` unmeasured ones: `most` of them, or as many as fit into `limit` seconds."""
        for _ in range(warm):
            work()
        found: list[float] = []
        while not found or (len(found) < most and sum(found) < limit and not self.late):
            found.append(self.seconds(work))
        return found

    def milliseconds(self, work: Callable[[], object], warm: int, most: int) -> float:
        """The median of `times`."""
        return round(1e3 * median(self.times(work, warm, most)), 4)

    def reset_peak(self) -> None:
        """Begins a new peak of memory."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_mib(self) -> float | None:
        """Of tensors since `reset_peak`; None on a CPU."""
        return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1) if self.cuda else None

    def synchronisations(self, work: Callable[[], object]) -> int | None:
        """How often one run waits for the device, as torch counts it; None on a CPU."""
        if not self.cuda:
            return None
        self.wait()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                work()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return count_synchronisations(said)

    def bandwidth(self, numbers: int) -> float:
        """Bytes per second read and written by copying `numbers` float32."""
        source = torch.zeros(numbers, device=self.device)
        target = torch.empty_like(source)
        best = min(self.times(lambda: target.copy_(source), 2, 10, limit=1.0))
        return 2 * source.numel() * source.element_size() / best

    def describe(self) -> dict[str, Any]:
        """The device by name, and what torch was built for."""
        name = torch.cuda.get_device_name(self.device) if self.cuda else "CPU"
        return {"device": name, "type": self.device.type, "cuda": torch.version.cuda}


def count_synchronisations(said: list[Any]) -> int:
    """Of recorded warnings, those of torch about waiting for the device."""
    return sum(SYNCHRONISES in str(warning.message) for warning in said)
