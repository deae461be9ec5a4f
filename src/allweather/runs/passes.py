"""Passes of the transductive protocol over a stream: what became of each frame in each, and why they ended."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from allweather.runs.decisions import STREAM_PASSES, count, decision_of
from allweather.runs.record import describe_result, watched_ends
from allweather.scoring.means import mean_of
from allweather.session import Result

Line = dict[str, Any]


class Passes:
    """What a session said of each frame, pass by pass.

    Attributes:
        stop: why the passes ended: `plateau`, `rise`, `cap`, or `none` (nothing was minimised).
    """

    def __init__(self) -> None:
        self.stop = "none"
        self._lines: dict[str, list[Line]] = {}

    def add(self, names: Iterable[str], result: Result) -> None:
        """Takes down what became of one batch, whose frames have these names; its predictions are not kept."""
        line = watched_ends(result) | describe_result(result)
        for name in names:
            self._lines.setdefault(name, []).append(line)

    def ended(self, stop: str) -> Self:
        """These passes, with why there were no more."""
        self.stop = stop
        return self

    def of(self, name: str, seconds: float) -> Line:
        """A frame as a record's image holds it: updates and seconds of all passes, and a line for each.

        Args:
            seconds: that its prediction took afterwards.
        """
        lines = self._lines.get(name, [])
        return {
            "iterations": sum(line["iterations"] for line in lines),
            "stop": self.stop,
            "seconds": round(sum(line["seconds"] for line in lines) + seconds, 4),
            STREAM_PASSES: lines,
        }


def summed(images: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Each pass over all of a record's images: the mean watched loss, updates, decisions by kind, and seconds.

    Every frame of a batch counts what its batch did, but for the seconds, of which it has a share.

    Nothing where none was made: of other protocols, and of records before these were kept.
    """
    frames = [image[STREAM_PASSES] for image in images if STREAM_PASSES in image]
    most = max(map(len, frames), default=0)
    return [_sum([lines[number] for lines in frames if number < len(lines)]) for number in range(most)]


def _sum(lines: Sequence[Line]) -> Line:
    watched = mean_of(value for line in lines for value in line.get("watched", ())[:1])
    return {
        "watched": None if watched is None else round(watched, 6),
        "iterations": sum(line["iterations"] for line in lines),
        "decisions": count(decision for line in lines if (decision := decision_of(line))),
        "seconds": round(sum(line["seconds"] for line in lines), 2),
    }
