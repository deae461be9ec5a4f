"""The reader: puts a source's pictures into the slot at its pace, and connects again where a stream breaks off."""

import sys
from collections.abc import Callable, Iterator

from allweather.errors import AllWeatherError, InputError
from allweather.live.clock import Clock
from allweather.live.frame import EventKind
from allweather.live.slot import Slot
from allweather.live.sources import Lost, Shot, Source

ENDED = "the stream ended"
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds before each try to connect again; the last one stays


class Reader:
    """Reads one source to its end, in a thread of its own.

    Args:
        source: what is read.
        slot: where pictures go.
        paced: whether pictures with a time wait for it; otherwise they come as fast as they are taken.
        tries: how often in a row to connect again to a stream that broke off.

    Attributes:
        notify: hears what happens, from the reader's thread.

    Raises:
        InputError: when the source cannot be connected to at all.
    """

    notify: Callable[[EventKind, str], None]

    def __init__(
        self,
        source: Source,
        slot: Slot,
        clock: Clock,
        *,
        paced: bool,
        tries: int,
    ) -> None:
        self.source, self._slot, self._clock = source, slot, clock
        self._paced, self._tries, self._failed = paced, tries, 0
        self._shots = source.connect()
        self._begin: float | None = None

    def run(self) -> None:
        """Reads until the stream ends, is given up, or nobody wants frames; then closes the slot."""
        error: BaseException | None = None
        try:
            self._read()
        except AllWeatherError as refused:
            error = refused
        finally:
            self._slot.end(error or sys.exc_info()[1])

    def _read(self) -> None:
        while True:
            try:
                if not self._play(self._shots) or not self.source.endless:
                    break
                raise Lost(ENDED)
            except Lost as error:
                if not self.source.endless:
                    self.notify("damaged", f"{self.source.label}: {error}; what came before is complete")
                    return
                again = self._again(str(error))
                if again is None:
                    return
                self._shots = again
        if self.source.damage:
            self.notify("damaged", self.source.damage)

    def _play(self, shots: Iterator[Shot]) -> bool:
        """Hands over the pictures of one connection; whether more are wanted after the last."""
        for shot in shots:
            if shot.failure is not None or shot.make is None:
                self.notify("unreadable", shot.failure or "a picture cannot be read")
                continue
            if self._failed:
                self.notify("back", f"{self.source.label} is back")
                self._failed = 0
            if not self._wait_for(shot) or not self._slot.put(shot.make, shot.seconds):
                return False
        return True

    def _wait_for(self, shot: Shot) -> bool:
        """Waits until a picture is due; whether it is still wanted."""
        if not self._paced or shot.seconds is None:
            return True
        self._begin = self._clock.now() - shot.seconds if self._begin is None else self._begin
        ahead = self._begin + shot.seconds - self._clock.now()
        return ahead <= 0 or self._slot.pause(ahead)

    def _again(self, reason: str) -> Iterator[Shot] | None:
        """A new connection; None where it is given up, or nobody waits for it."""
        if not self._tries and reason == ENDED:
            return None
        while self._failed < self._tries:
            pause = PAUSES[min(self._failed, len(PAUSES) - 1)]
            self.notify("lost", f"{self.source.label}: {reason}; trying again in {pause:g} s")
            if not self._slot.pause(pause):
                return None
            self._failed += 1
            try:
                return self.source.connect()
            except InputError as error:
                reason = str(error).removeprefix(f"{self.source.label}: ").rstrip(".")
        self.notify("gave-up", f"{self.source.label}: {reason}; given up after {self._failed} tries")
        return None
