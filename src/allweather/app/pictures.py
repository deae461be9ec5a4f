"""The pictures that are written of a frame: which there are, where they stand, and whether they are whole."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from allweather.app.drawn import Drawn
from allweather.app.reel import Reel
from allweather.classes import ClassSet
from allweather.data.images import is_whole
from allweather.errors import ImageError
from allweather.finite import or_none
from allweather.pictures.writing import write_image
from allweather.runs.evaluate import Outcome
from allweather.runs.record import describe_result
from allweather.scale.work import Line
from allweather.writing import place_below

Kind = Literal["labels", "color", "overlay", "confidence", "video"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SUFFIXES: dict[Kind, str] = {"labels": "png", "color": "png", "overlay": "jpg", "confidence": "png"}  # by folder of OUT


@dataclass(frozen=True, eq=False)
class Seen:
    """What became of one frame, and the source network's logits of it where the film shows them."""

    outcome: Outcome
    source: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of frame and logits."""
        return self.outcome.nbytes + (0 if self.source is None else self.source.nbytes)


@dataclass(frozen=True, eq=False)
class Written:
    """A frame whose pictures are on the disk: its line in the record, and its picture in the film."""

    name: str
    line: dict[str, Any]
    picture: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Pictures:
    """Writes what is to be written of a frame; small enough to go to a worker.

    Attributes:
        folder: OUT.
        kinds: what is written.
    """

    folder: Path
    kinds: tuple[Kind, ...]

    def __call__(self, outcome: Outcome, classes: ClassSet) -> Line:
        written = self.write(Seen(outcome), classes)
        return {"name": written.name, **written.line}

    def write(self, seen: Seen, classes: ClassSet, reel: Reel | None = None) -> Written:
        """Writes the pictures of one frame; may run in several threads at once. One that is no picture is a failure."""
        outcome = seen.outcome
        if outcome.frame is None or outcome.logits is None:
            return Written(outcome.name, {"failure": outcome.failure or "no prediction"})
        drawn = Drawn(outcome.frame, outcome.logits, classes)
        try:
            for kind, place in self._places(outcome.name).items():
                write_image(place, getattr(drawn, kind))
            picture = None if reel is None else reel.picture(drawn, seen.source)
        except ImageError as error:
            return Written(outcome.name, {"failure": str(error)})
        return Written(outcome.name, _entry(outcome), picture)

    def is_whole(self, name: str) -> bool:
        """Whether every picture of this image is there, and none empty or cut, as a power failure leaves them."""
        return all(map(is_whole, self._places(name).values()))

    def _places(self, name: str) -> dict[Kind, Path]:
        known = {kind: suffix for kind, suffix in SUFFIXES.items() if kind in self.kinds}
        return {kind: place_below(self.folder / kind, f"{name}.{suffix}") for kind, suffix in known.items()}


def _entry(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    if result is None:
        return outcome.learnt or {}
    return {
        "losses": or_none(round(loss, 6) for loss in result.losses),
        "watched": or_none(round(loss, 6) for loss in result.watched),
        **describe_result(result),
    }
