"""Workers as whoever hands out the jobs sees them, whichever engine runs them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

from allweather.scale.task import Message


@dataclass(frozen=True)
class Event:
    """A message of a worker.

    Attributes:
        job: what it is at; None for what concerns the worker itself.
        message: what it said, or what was found of a worker that is no more.
    """

    job: Any
    message: Message


class Pool(ABC):
    """Workers that take one job each; one that ends by itself is replaced."""

    @property
    @abstractmethod
    def idle(self) -> int:
        """How many more jobs would be taken now."""

    @property
    @abstractmethod
    def busy(self) -> int:
        """How many workers cannot take a job yet: they are at one, or end and are being replaced."""

    @abstractmethod
    def begin(self, job: Any) -> None:
        """Gives a job to an idle worker."""

    @abstractmethod
    def events(self, seconds: float) -> list[Event]:
        """What was said meanwhile; waits so long for the first of it."""

    @abstractmethod
    def stop(self) -> None:
        """Asks all workers to leave their jobs where they stand, as soon as that loses nothing."""

    @abstractmethod
    def close(self) -> None:
        """Ends all workers, whatever they are at."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
