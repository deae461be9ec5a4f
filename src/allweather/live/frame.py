"""What live gives: predicted frames, what was learnt from some of them, and what happened to the stream."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from allweather.data.stream import Frame
from allweather.finite import or_none
from allweather.session import Decision, Result
from allweather.session.snapshot import Snapshot

EventKind = Literal["unreadable", "not-finite", "lost", "back", "gave-up", "size", "damaged", "learner"]


@dataclass(frozen=True)
class Event:
    """Something other than a frame.

    Attributes:
        kind: `unreadable`, a picture that cannot be read; `not-finite`, a picture that the network gives no finite
            numbers for; `lost`, the stream broke off and is tried again; `back`, it came back; `gave-up`, it did not;
            `size`, frames have another size from here on; `damaged`, a file was not whole; `learner`, learning ended
            before the stream.
        text: what happened, in words.
        seconds: when, counted from the beginning.
    """

    kind: EventKind
    text: str
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether something is missing from the result because of it."""
        return self.kind not in ("lost", "back", "size")


@dataclass(frozen=True)
class Learnt:
    """What became of one frame that was given to learn from.

    Attributes:
        index: the frame's.
        decision, iterations, losses, seconds: as in `Result`.
        adapted: whether the network learnt from it: an update, or a change of what moves without one.
        state: what predictions are to be made with from now on; None where it has not changed.
    """

    index: int
    decision: Decision
    iterations: int
    losses: tuple[float, ...]
    seconds: float
    adapted: bool
    state: Snapshot | None = field(default=None, repr=False)

    def facts(self) -> dict[str, Any]:
        """Its part of the frame's line in the record."""
        reason = {"reason": self.decision.reason} if self.decision.reason else {}
        why = {} if self.adapted else {"why": self.decision.reason or "nothing was found to learn from"}
        return {
            "adapted": self.adapted,
            **why,
            "decision": self.decision.kind,
            **reason,
            "iterations": self.iterations,
            "losses": or_none(round(loss, 6) for loss in self.losses),
            "learnt_in": round(self.seconds, 6),
        }


@dataclass(frozen=True)
class LiveFrame:
    """One frame with its prediction.

    Attributes:
        index: its number among all that arrived, from 0; those left out in between were dropped.
        frame: the picture, and its name.
        result: the prediction; decision, losses and iterations are those of this frame only where `wait` is set.
        arrival: when it was there to be predicted, in seconds from the beginning.
        age: seconds from its arrival to the beginning of its prediction.
        latency: seconds from its arrival to its prediction.
        dropped: frames dropped since the one before.
        state: how many states had been handed over when it was predicted; 0 is the network as the session began.
        why: why this frame is not given to learn from; empty where it is.
        seconds: when it is shown, counted from the beginning of a file or folder; None of what comes in its own time.
    """

    index: int
    frame: Frame
    result: Result
    arrival: float
    age: float
    latency: float
    dropped: int
    state: int
    why: str = ""
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The frame's name: a file's in a folder, a number elsewhere."""
        return self.frame.name

    def overlay(self, opacity: float = 0.5) -> np.ndarray:
        """The classes' colors over the picture, H×W×3 uint8; `opacity` of the colors, 0..1."""
        picture = self.frame.image if self.frame.picture is None else self.frame.picture
        return self.result.overlay(picture, opacity=opacity)

    def facts(self) -> dict[str, Any]:
        """Its line in the record, without what was learnt from it; times in seconds."""
        adapted = {"adapted": False, "why": self.why} if self.why else {}
        return {
            "frame": self.index,
            "name": self.name,
            "arrival": round(self.arrival, 6),
            "age": round(self.age, 6),
            "latency": round(self.latency, 6),
            "dropped": self.dropped,
            "state": self.state,
            **adapted,
        }
