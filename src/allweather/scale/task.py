"""What a worker does, whichever engine runs it: a task is opened once a worker and does job after job."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from allweather.errors import AllWeatherError, first_line
from allweather.plugins import FAULTS, own_fault

Message = Mapping[str, Any]  # what a worker says of its job: plain values, by kind
FAILED, DONE, FATAL = "failed", "done", "fatal"  # the kinds that end a job; the last one ends everything
SURE = "sure"  # beside `failed`: another attempt would end alike, and the worker stays; without it the worker ends
BEGUN, LINES = "begun", "lines"  # a frame that is about to be read; frames that are on the disk, as lines of the record
LESS = "Fewer --workers, or a smaller --size, take less."


class Fatal(AllWeatherError):
    """What would meet every job alike, such as a full disk: nothing goes on."""


class Talk(Protocol):
    """A worker's way to the one that gave it its job; may be used from several threads."""

    def say(self, message: Message) -> None:
        """Sends a message."""

    def stopping(self) -> bool:
        """Whether the job is to be left where it stands."""


class Job(Protocol):
    """One piece of work, small enough to be sent."""

    @property
    def title(self) -> str:
        """What messages call it."""


Do = Callable[[Any, Talk], Message]  # does a job; what it gives is said with `done`


class Task(Protocol):
    """What every worker is given once; small enough to be sent, and the same for all."""

    def open(self, index: int) -> Do:
        """Makes everything ready in worker number `index`.

        Raises:
            AllWeatherError: where this worker cannot work.
        """


@dataclass(frozen=True)
class Ended:
    """How a job ended: its last message, and whether the worker can take another."""

    message: Message
    usable: bool = True


def attempt(do: Do, job: Any, talk: Talk) -> Ended:
    """Does one job; what goes wrong becomes its last message. After a fault of nobody we know the worker is to go."""
    try:
        return Ended({DONE: do(job, talk)})
    except Fatal as error:
        return Ended({FATAL: str(error)})
    except AllWeatherError as error:
        return Ended({FAILED: str(error), SURE: True})
    except MemoryError as error:
        return Ended({FAILED: f"out of memory ({error or 'nothing left'}). {LESS}"}, usable=False)
    except FAULTS as error:
        kind, said = type(error).__name__, first_line(error)
        if "memory" in f"{kind} {error}".lower():
            return Ended({FAILED: f"{kind} ({said}). {LESS}"}, usable=False)
        return Ended({FAILED: own_fault(error) or f"{kind}: {said}"}, usable=False)
