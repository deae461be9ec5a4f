"""How long a video says that it is, and what to say of one that ends before."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Self

from allweather.data.decoding import Losses

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

USUAL_RATE = Fraction(25)  # of a file that says nothing: FFmpeg's own convention
PAUSE = 1.0  # seconds without a frame in which a recorder of AVI may stop


@dataclass(frozen=True)
class Length:
    """What a file or finite stream says of its pictures.

    Attributes:
        rate: frames per second, the average where it varies; 25 where nothing is said.
        seconds: how long they last; None where nothing is said.
        frames: how many they are; None where nothing is said.
    """

    rate: Fraction
    seconds: float | None
    frames: int | None

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream) -> Self:
        """By a file's own account; an MP4 file that was never finished counts the frames of its first piece alone."""
        rate = stream.average_rate or stream.guessed_rate or USUAL_RATE
        seconds = _duration(container, stream)
        whole = stream.frames and not (seconds and stream.frames < 0.9 * seconds * rate)
        return cls(rate, seconds, stream.frames if whole else None)

    def missing(self, container: InputContainer, losses: Losses) -> str | None:
        """What to say of a `container`, read to its end with these `losses`, that ends too early; else None."""
        if losses.stopped is not None:
            return losses.stopped
        whole, rate = self.seconds, float(self.rate)
        short = whole is not None and losses.end < whole - 1.5 / rate
        if self.frames is None:
            return f"the file ends early: {losses.end:.2f} of {whole:.2f} seconds are in it" if short else None
        if "mov" not in container.format.name.split(","):  # AVI counts dropped frames, the last ones too; FFmpeg
            short = min(whole or 0.0, losses.end + PAUSE) < (self.frames - 0.5) / rate  # shortens what it finds cut off
        if losses.read < self.frames and short:  # an edit list may leave frames out on purpose
            return f"the file ends early: {losses.read} of {self.frames} frames are in it"
        return None


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds of the pictures alone; of all streams together only where there is no other."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if "DURATION" in stream.metadata:
        return _clock(stream.metadata["DURATION"])
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / 1_000_000
    return None


def _clock(text: str) -> float | None:
    """Seconds of 'HH:MM:SS.fraction'; None for anything else."""
    try:
        hours, minutes, seconds = map(float, text.split(":"))
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds
