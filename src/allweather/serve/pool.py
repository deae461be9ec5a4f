"""The work of all visitors in few threads: each one's in the order it came, taken in turn, and never too much of it."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from allweather.errors import AllWeatherError

LOG = logging.getLogger(__name__)
T = TypeVar("T")
Job = tuple["Future[Any]", Callable[[], Any]]


class BusyError(AllWeatherError):
    """No room for another request, stream or visitor; there will be."""


class StoppingError(AllWeatherError):
    """The server is being stopped and takes nothing new."""


class Lane:
    """The jobs of one stream or visitor: one runs at a time, in order; or of many, which begin in order.

    Args:
        most: jobs that may run at once.
    """

    def __init__(self, most: int = 1) -> None:
        self.jobs: deque[Job] = deque()
        self.most, self.taken = most, 0  # jobs that a thread works on, or that wait for one


class Pool:
    """Threads that take jobs of lanes in turn.

    Args:
        workers: threads that work; each network call uses torch's own threads besides.
        most: requests that may be admitted at once.
    """

    def __init__(self, workers: int, most: int) -> None:
        self.workers, self.most = workers, most
        self.admitted = 0
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queued = 0  # jobs that have not ended
        self._ready: SimpleQueue[tuple[Lane, Job] | None] = SimpleQueue()
        self._leaving_off = self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"serve-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def admission(self) -> Iterator[None]:
        """A place among the requests that are dealt with at once, for as long as the block lasts.

        Raises:
            BusyError: where there is none.
            StoppingError: once `leave_off` or `close` was called.
        """
        with self._lock:
            self._check_open(self._leaving_off)
            if self.admitted >= self.most:
                raise BusyError(f"{self.most} requests are running or waiting already. Try again in a second.")
            self.admitted += 1
        try:
            yield
        finally:
            with self._lock:
                self.admitted -= 1

    def submit(self, lane: Lane, work: Callable[[], T]) -> "Future[T]":
        """Queues work in a lane.

        Raises:
            StoppingError: once `close` was called.
        """
        future: Future[T] = Future()
        with self._lock:
            self._check_open()
            self._queued += 1
            lane.jobs.append((future, work))
            self._hand_out(lane)
        return future

    def leave_off(self) -> None:
        """Admits nobody any more; those who are in go on."""
        with self._lock:
            self._leaving_off = True

    def close(self) -> None:
        """Takes nothing new, does what was taken, and ends the threads."""
        with self._idle:
            already, self._stopping = self._stopping, True
            if already:
                return
            self._idle.wait_for(lambda: not self._queued)
        for _ in self._threads:
            self._ready.put(None)
        for thread in self._threads:
            thread.join()

    def _check_open(self, closed: bool = False) -> None:
        if closed or self._stopping:
            raise StoppingError("this server is being stopped. Try again when it runs.")

    def _hand_out(self, lane: Lane) -> None:
        """Puts the lane's next job behind those of others, where it may run; the lock is held."""
        if lane.jobs and lane.taken < lane.most:
            lane.taken += 1
            self._ready.put((lane, lane.jobs.popleft()))

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """Does one job, of which nothing is held afterwards; whether there was one."""
        if (ready := self._ready.get()) is None:
            return False
        lane, (future, work) = ready
        if future.set_running_or_notify_cancel():
            _run(future, work)
        with self._idle:
            lane.taken -= 1
            self._hand_out(lane)
            self._queued -= 1
            self._idle.notify_all()
        return True


def _run(future: "Future[Any]", work: Callable[[], Any]) -> None:
    """What the work gives, or what it raises, goes to whoever waits for it."""
    try:
        result = work()
    except AllWeatherError as error:
        future.set_exception(error)
    except BaseException as error:  # a thread must outlive its jobs
        LOG.exception("a request failed")
        ended = RuntimeError(f"the work ended in {type(error).__name__}")  # which would end the event loop too
        future.set_exception(error if isinstance(error, Exception) else ended)
    else:
        future.set_result(result)
