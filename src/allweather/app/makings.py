"""What every session of a run over many streams is made of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allweather.models import Segmenter
from allweather.runs.evaluate import Protocol
from allweather.session import Session


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
