"""What workers and ranks need of the command line: what every session is made of, and how a frame is written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allweather.app.output import Kind, Output, Seen
from allweather.classes import ClassSet
from allweather.models import Segmenter
from allweather.runs.evaluate import Outcome, Protocol
from allweather.scale.work import Line
from allweather.session import Session


@dataclass(frozen=True)
class Pictures:
    """Writes what is to be written of a frame; small enough to go to a worker."""

    folder: Path
    kinds: tuple[Kind, ...]

    def __call__(self, outcome: Outcome, classes: ClassSet) -> Line:
        written = Output(self.folder, {}, self.kinds).write(Seen(outcome), classes)
        return {"name": written.name, **written.line}

    def is_whole(self, name: str) -> bool:
        """Whether all of it is there."""
        return Output(self.folder, {}, self.kinds).is_whole(name)


@dataclass(frozen=True)
class Makings:
    """What every session of the run is made of.

    Attributes:
        model: on the CPU.
        session: one of them, which has not begun.
        options: of every session.
        device, protocol, batch: as on the command line.
        start: the session that every stream begins with; None is the source network.
    """

    model: Segmenter
    session: Session
    options: dict[str, Any]
    device: str
    protocol: Protocol
    batch: int
    start: Path | None
