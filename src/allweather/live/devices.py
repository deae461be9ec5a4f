"""Where predictor and learner run at once: a CUDA stream each, and a share of the CPU's threads each."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class OwnStream:
    """On a GPU, a stream of its own; elsewhere nothing.

    Args:
        device: where the network lies.
        first: whether its work goes ahead of that of other streams.
    """

    def __init__(self, device: torch.device, *, first: bool) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the network may still be on its way in the stream that made it
            self._stream = torch.cuda.Stream(device, priority=-1 if first else 0)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Inside, what is queued goes to the stream; it is done at the end."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()


def split_threads(total: int) -> tuple[int, int]:
    """Threads of each operation for predictor and learner, of so many together: a quarter, at least one, learns."""
    learner = max(1, total // 4)
    return max(1, total - learner), learner


@contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Inside, operations of this thread run on so many; None leaves it."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
