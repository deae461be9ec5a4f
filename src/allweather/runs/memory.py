"""The peak of memory over one run: of the device, or of this process where the run is on the CPU."""

import sys
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset_peak(device: str) -> None:
    """Starts a new peak, where the system lets a process do so; else the peak is the process's since its start."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _CLEAR.write_text("5")
    except OSError:
        return  # another system than Linux, or a container that forbids it


def peak_memory(device: str) -> float | None:
    """MiB at the peak; None where the system does not tell."""
    if device.startswith("cuda"):
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        lines = _STATUS.read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10, 1)
    except OSError:
        return _of_the_whole_process()


def _of_the_whole_process() -> float | None:
    try:
        import resource
    except ImportError:  # no such module on Windows
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
