"""Reading ahead and writing behind: both go on in threads while the network works, and the order stays."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

import torch

from allweather.data.stream import Frame, Stream, no_frame
from allweather.interrupts import interruptions_wait

T = TypeVar("T")
U = TypeVar("U")

AT_HAND = 1 << 28  # bytes of the frames that wait on one side
MOST = 8  # frames that wait on one side, however small


def workers() -> int:
    """Threads for reading, and for writing: half of the processors, two to eight."""
    return min(8, max(2, (os.cpu_count() or 2) // 2))


class Ahead(Stream):
    """A stream whose next frames are read while the present one is at work.

    Args:
        stream: read in its order, by one thread where that is its only way.
        readers: threads.
    """

    def __init__(self, stream: Stream, readers: int) -> None:
        super().__init__(stream.names, stream.read)
        self._places = {name: place for place, name in enumerate(self.names)}
        self._threads = _threads(readers)
        self._coming: dict[str, Future[Frame]] = {}
        self._depth = 1

    def read(self, name: str) -> Frame:
        """The frame of that name; those after it are begun.

        Raises:
            ImageError: when it cannot be read, or no frame of this stream has the name.
        """
        if name not in self._places:
            raise no_frame(name, self.names)
        place = self._places[name]
        wanted = self.names[place : place + 1 + self._depth]
        self._coming = {each: self._coming.get(each) or self._begin(each) for each in wanted}
        frame = self._coming[name].result()
        del self._coming[name]
        self._depth = min(MOST, AT_HAND // max(1, frame.nbytes))
        return frame

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        for coming in self._coming.values():
            coming.cancel()
        _end(self._threads)

    def _begin(self, name: str) -> Future[Frame]:
        return self._threads.submit(super().read, name)


class Behind(Generic[T, U]):
    """Works on items in threads while the caller goes on, and keeps the results one by one in the order of the items.

    Leaving it waits until all is kept, after an error or an interruption too. What `work` or `keep` raises ends
    everything after it, and is raised by the next call.

    Args:
        work: makes an item's result; runs in several threads at once.
        keep: takes the results in order, in one thread.
        workers: threads that work.
    """

    def __init__(self, work: Callable[[T], U], keep: Callable[[U], None], workers: int) -> None:
        self._work, self._keep = work, keep
        self._workers, self._keeper = _threads(workers), _threads(1)
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._failed = False

    def put(self, item: T, size: int) -> None:
        """Hands an item of so many bytes over; waits as long as what is at work and it are too many.

        Raises:
            Exception: what became of an earlier item.
        """
        while self._waiting and (self._is_full(size) or self._waiting[0][1].done()):
            self._settle()
        result = self._workers.submit(self._work, item)
        self._waiting.append((size, self._keeper.submit(self._keep_one, result)))

    def wait(self) -> None:
        """Returns when everything that was handed over is kept.

        Raises:
            Exception: what became of an earlier item.
        """
        while self._waiting:
            self._settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            with interruptions_wait():  # what is kept must not be closed under the one that keeps
                _end(self._workers)
                _end(self._keeper)

    def _is_full(self, size: int) -> bool:
        return len(self._waiting) >= MOST or sum(each for each, _ in self._waiting) + size > AT_HAND

    def _settle(self) -> None:
        self._waiting[0][1].result()
        self._waiting.popleft()

    def _keep_one(self, result: Future[U]) -> None:
        if self._failed:
            return
        try:
            self._keep(result.result())
        except BaseException:
            self._failed = True
            raise


def _threads(number: int) -> ThreadPoolExecutor:
    """Threads in which torch works alone, so that they do not stand in the network's way."""
    return ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(1,))


def _end(threads: ThreadPoolExecutor) -> None:
    """Waits for what is left; threads that start later have as many of torch's again as this one."""
    threads.shutdown()
    torch.set_num_threads(torch.get_num_threads())
