"""Time, waiting and threads in one place, so that a test can put simulated ones there."""

from collections.abc import Callable
from threading import Condition, Thread
from time import perf_counter


class Clock:
    """The machine's own time, in seconds."""

    def now(self) -> float:
        """Seconds that never go back, from an arbitrary beginning."""
        return perf_counter()  # on Windows `monotonic` may count in steps of 16 ms

    def wait(self, condition: Condition, ready: Callable[[], bool], seconds: float | None = None) -> bool:
        """Waits, the condition held, until `ready()` or for so many seconds; whether it is ready."""
        return condition.wait_for(ready, seconds)

    def start(self, run: Callable[[], None], name: str) -> None:
        """Runs `run` in a thread of its own, which does not keep the process alive."""
        Thread(target=run, name=name, daemon=True).start()
