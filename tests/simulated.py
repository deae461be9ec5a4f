"""A clock whose time passes only when every thread waits, a scripted stream, a method whose work takes such time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from threading import Condition, Event, Thread, current_thread, main_thread
from typing import Any, ClassVar

import numpy as np
import torch
from tiny import SIZE
from torch import Tensor

from allweather import Frame, Segmenter
from allweather.live.clock import Clock
from allweather.live.sources import Shot, Source
from allweather.methods.gradient import GradientMethod
from allweather.methods.method import Batch, Objective, State

PATIENCE = 120.0  # real seconds after which a simulation counts as stuck


@dataclass
class _Seat:
    """A thread that waits: until when, for what, and what wakes it."""

    until: float
    ready: Callable[[], bool]
    turn: Event = field(default_factory=Event)


class _Left(BaseException):
    """Ends a thread that a test has left waiting."""


class SimulatedClock(Clock):
    """Threads take turns, one at a time, in the order in which they began to wait: every run is the same run."""

    def __init__(self):
        self.time = 0.0
        self._waiting: list[_Seat] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float):
        condition = Condition()
        with condition:
            self.wait(condition, lambda: False, seconds)

    def wait(self, condition: Condition, ready: Callable[[], bool], seconds: float | None = None) -> bool:
        end = inf if seconds is None else self.time + seconds
        while not ready() and self.time < end:
            condition.release()
            try:
                self._sit(_Seat(end, ready))
            finally:
                condition.acquire()
        return ready()

    def start(self, run: Callable[[], None], name: str):
        seat = _Seat(self.time, lambda: True)

        def body():
            seat.turn.wait()
            try:
                run()
            except _Left:
                return
            finally:
                self._pass_on()

        self._waiting.append(seat)
        Thread(target=body, name=name, daemon=True).start()

    def _sit(self, seat: _Seat):
        self._waiting.append(seat)
        self._pass_on()
        if seat.turn.wait(PATIENCE):
            return
        if current_thread() is not main_thread():
            raise _Left  # its test has ended long ago; whether a test is stuck, the test's own thread says
        raise AssertionError("every thread waits for another")

    def _pass_on(self):
        awake = next((seat for seat in self._waiting if seat.ready()), None)
        seat = awake or min(self._waiting, key=lambda seat: seat.until, default=None)
        if seat is None or (awake is None and seat.until == inf):
            return
        self.time = self.time if awake else max(self.time, seat.until)
        self._waiting.remove(seat)
        seat.turn.set()


def picture(number: int, size: tuple[int, int] = (SIZE[1], SIZE[0])) -> np.ndarray:
    """A picture of its own for every number, of (width, height)."""
    return np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)


class Scripted(Source):
    """A stream that does what its script says, connection by connection.

    A number is seconds until the next picture, a size is that of the pictures from there on, an exception is raised.
    A connection that is an exception is refused.
    """

    def __init__(self, clock: SimulatedClock, *script: Sequence[Any] | Exception, endless: bool = True):
        self.label, self.endless, self._clock = "scripted", endless, clock
        self._script, self._number = list(script), 0
        self._size = (SIZE[1], SIZE[0])

    def connect(self) -> Iterator[Shot]:
        actions = self._script.pop(0)
        if isinstance(actions, Exception):
            raise actions
        return self._shots(actions)

    def _shots(self, actions: Sequence[Any]) -> Iterator[Shot]:
        for action in actions:
            if isinstance(action, Exception):
                raise action
            if isinstance(action, tuple):
                self._size = action
                continue
            self._clock.sleep(action)
            make = partial(Frame.of, f"{self._number:06d}", picture(self._number, self._size), None)
            self._number += 1
            yield Shot(make=make)


class Timing:
    """How long the slow method's work takes, on which clock."""

    clock: SimulatedClock
    predict = 0.0
    learn = 0.0


@dataclass(frozen=True, kw_only=True)
class Slow(GradientMethod):
    """Sharpens the prediction; each pass over the network takes simulated time."""

    name: ClassVar[str] = "slow"
    source: ClassVar[str] = "the tests"
    episodic: bool = False
    lr: float = 0.01

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        Timing.clock.sleep(Timing.learn)
        logits = model(batch.images)
        return Objective(logits, -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean())

    def predict(self, model: Segmenter, state: State, images: Tensor) -> Tensor:
        Timing.clock.sleep(Timing.predict)
        return model(images)


def image_of(number: int) -> Tensor:
    """What the session sees of a scripted picture."""
    return torch.from_numpy(picture(number)).permute(2, 0, 1).contiguous().float() / 255
