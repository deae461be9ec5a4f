"""How often to learn: every K-th frame, or as often as the measured times and the budget allow."""

from dataclasses import dataclass, field
from math import ceil, inf
from typing import Literal

KEEP = 0.8  # share of itself that a running mean keeps at each new value
RAREST = 100  # frames between two that are learnt from, where even one too many would be late


@dataclass
class Mean:
    """A running mean that forgets; `value` is None before the first number."""

    value: float | None = None

    def add(self, number: float) -> None:
        """Takes up a number."""
        self.value = number if self.value is None else KEEP * self.value + (1 - KEEP) * number


@dataclass
class Pace:
    """Says whether a frame may be learnt from.

    Attributes:
        every: K, or `auto`.
        budget: seconds that a prediction may take; None where nothing limits it.
        waits: whether the prediction waits for the learning, which is then part of its time.
        alone, beside, learning, between: running means in seconds: of predictions while nothing was learnt, and while
            something was, of learning from one frame, and between two predictions.
    """

    every: int | Literal["auto"]
    budget: float | None
    waits: bool = False
    alone: Mean = field(default_factory=Mean)
    beside: Mean = field(default_factory=Mean)
    learning: Mean = field(default_factory=Mean)
    between: Mean = field(default_factory=Mean)
    _since: int = RAREST

    def due(self) -> bool:
        """Whether this frame's turn has come; `took` says that it was taken."""
        self._since += 1
        return self._since >= self.stride()

    def took(self) -> None:
        """The frame is learnt from."""
        self._since = 0

    def stride(self) -> int:
        """Every how many frames one is learnt from."""
        if self.every != "auto":
            return self.every
        if self.budget is None or self.alone.value is None or self.learning.value is None:
            return 1
        if self.waits:
            return stride_that_fits(self.budget, self.alone.value, self.learning.value)
        beside = self.beside.value
        if beside is None or beside <= self.budget or beside <= self.alone.value:
            return 1
        frames = max(1.0, self.learning.value / (self.between.value or beside))  # that one step of learning lasts
        return stride_that_fits(self.budget, self.alone.value, beside, frames)


def stride_that_fits(budget: float, alone: float, beside: float, frames: float = 1.0) -> int:
    """The least K with which predictions take `budget` seconds on average.

    Args:
        alone, beside: seconds of a prediction without and with learning.
        frames: how many predictions one step of learning slows down.
    """
    share = (budget - alone) / (beside - alone) if beside > alone else inf  # of predictions that may be slow
    return RAREST if share <= frames / RAREST else max(1, ceil(frames / share))
