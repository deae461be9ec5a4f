"""One place between the reader and the predictor: the newest frame wins."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition

from allweather.data.stream import Frame
from allweather.live.clock import Clock


@dataclass(frozen=True)
class Arrived:
    """A frame that is there to be predicted.

    Attributes:
        index: its number among all that arrived.
        at: when, by the clock.
        make: gives the frame; decoding is done, resampling may not be.
        seconds: when it is shown, counted from the source's beginning; None for one that is due as it comes.
    """

    index: int
    at: float
    make: Callable[[], Frame]
    seconds: float | None = None


class Slot:
    """Where a reader puts frames and a predictor takes them, each in its own thread.

    Args:
        clock: what waits.
        keep: whether the reader waits until a frame is taken; otherwise a newer one replaces it.
    """

    def __init__(self, clock: Clock, keep: bool) -> None:
        self._clock, self._keep = clock, keep
        self._changed = Condition()
        self._held: Arrived | None = None
        self._closed = self._ended = False
        self._error: BaseException | None = None
        self._arrived = 0

    def put(self, make: Callable[[], Frame], seconds: float | None = None) -> bool:
        """Puts a frame that arrives now and is shown at `seconds`; whether anybody still wants one."""
        with self._changed:
            if self._keep:
                self._clock.wait(self._changed, lambda: self._held is None or self._closed)
            self._held = Arrived(self._arrived, self._clock.now(), make, seconds)
            self._arrived += 1
            self._changed.notify_all()
            return not self._closed

    def take(self) -> Arrived | None:
        """Waits for a frame; None once the stream has ended.

        Raises:
            BaseException: what the reader ended with.
        """
        with self._changed:
            self._clock.wait(self._changed, lambda: self._held is not None or self._closed)
            taken, self._held = self._held, None
            self._changed.notify_all()
            if taken is None and self._error is not None:
                raise self._error
            return taken

    def pause(self, seconds: float) -> bool:
        """Waits so long, or until nobody wants a frame any more; whether somebody does."""
        with self._changed:
            return not self._clock.wait(self._changed, lambda: self._closed, seconds)

    def close(self, error: BaseException | None = None) -> None:
        """No more frames come, or are wanted; the one that is there can still be taken."""
        with self._changed:
            self._closed, self._error = True, error or self._error
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """As `close`, from the reader, which puts nothing more."""
        with self._changed:
            self._ended = True
            self.close(error)

    def await_end(self, seconds: float) -> None:
        """Waits until the reader has ended, or so long."""
        with self._changed:
            self._clock.wait(self._changed, lambda: self._ended, seconds)

    @property
    def arrived(self) -> int:
        """Frames that came."""
        return self._arrived
