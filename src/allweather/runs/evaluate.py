"""Running a session over a stream under one of two protocols, and what became of each frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from allweather.data.stream import Frame, Stream
from allweather.errors import ImageError, InputError, check_known
from allweather.finite import all_finite
from allweather.runs.passes import Passes
from allweather.session import Result, Session
from allweather.session.streaming import grouped
from allweather.values import check_number

Protocol = Literal["online", "transductive"]
PASSES = 10  # cap of transductive passes over the stream


@dataclass(frozen=True, eq=False)
class Outcome:
    """One frame after adaptation.

    Attributes:
        name: the frame's.
        frame, logits: the frame and its C×H×W prediction; None where the frame could not be read, or
            the prediction is not finite.
        result: what the session said of the frame's batch; None where it only predicted or could not read.
        failure: why there is no prediction.
        learnt: after transductive passes, what a record says of the frame in them; None elsewhere.
    """

    name: str
    frame: Frame | None = None
    logits: Tensor | None = None
    result: Result | None = None
    failure: str | None = None
    learnt: dict[str, Any] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of frame and prediction."""
        return sum(part.nbytes for part in (self.frame, self.logits) if part is not None)

    @classmethod
    def of(
        cls, frame: Frame, logits: Tensor, result: Result | None = None, learnt: dict[str, Any] | None = None
    ) -> "Outcome":
        """The frame with its prediction C×H×W; a failure where that is not finite, as no class can be told of it."""
        if all_finite(logits):
            return cls(frame.name, frame, logits, result, learnt=learnt)
        reason = f" ({result.decision.reason})" if result is not None and result.decision.reason else ""
        return cls(frame.name, failure=f"{frame.name}: the network gives no finite numbers for it{reason}")


def run(
    session: Session,
    stream: Stream,
    protocol: Protocol = "online",
    batch: int = 1,
    skip: frozenset[str] = frozenset(),
) -> Iterator[Outcome]:
    """Adapts along `stream` and gives every frame's outcome in order, each when it is asked for.

    `online`: the prediction of a frame is the one made when it came. `transductive`: passes over the whole stream
    until the method's stopping rule or `PASSES`, then a prediction of every frame; the same as online for methods
    that return to the source after each batch.

    Args:
        batch: frames per adaptation, at least 1; a new one also begins where the size changes.
        skip: names whose outcome is already known and not yielded; batches stay as they were, and where they do not
            stand alone they are adapted to again, so that the rest come out as if nothing had stopped.

    Raises:
        SettingsError: for an unknown protocol, or a batch below 1.
        InputError: for anything but a stream.
    """
    check_known("protocol", protocol, get_args(Protocol))
    check_number("batch", batch, whole=True, low=1)
    if not isinstance(stream, Stream):
        held = isinstance(getattr(stream, "stream", None), Stream)
        way = "Pass its `.stream`." if held else "Frames of your own go to session.stream(frames)."
        raise InputError(f"expected a stream, as allweather.load_stream(…) gives; got a {type(stream).__name__}. {way}")
    return _outcomes(session, stream, protocol, batch, skip)


def _outcomes(
    session: Session, stream: Stream, protocol: Protocol, batch: int, skip: frozenset[str]
) -> Iterator[Outcome]:
    if protocol == "online" or session.method.episodic:
        for group in groups(session, stream, batch, skip):
            yield from (outcome for outcome in group if outcome.name not in skip)
        return
    passes = _passes(session, stream, batch)
    for name in stream.names:
        if name not in skip:
            frame = _read(stream, name)
            yield frame if isinstance(frame, Outcome) else _predicted(session, frame, passes)


def groups(
    session: Session, stream: Stream, batch: int, skip: frozenset[str] = frozenset(), alone: bool | None = None
) -> Iterator[list[Outcome]]:
    """The online protocol batch by batch: the outcomes of one call of the session, those of `skip` included.

    When a list is given, the session stands where that batch left it. Where batches stand alone, those that are in
    `skip` as a whole are left out; their outcomes are bare names.

    Args:
        alone: whether batches do; None finds out with the first that is adapted to.
    """
    alone = alone if may_stand_alone(session) else False
    for frames in _batches(stream, batch):
        if alone and all(item.name in skip for item in frames):
            yield [Outcome(item.name) for item in frames]
            continue
        good = [frame for frame in frames if isinstance(frame, Frame)]
        random = session.state.generator.get_state()
        result = session(torch.stack([frame.image for frame in good])) if good else None
        if alone is None and result and result.decision.kind != "skipped":
            alone = torch.equal(random, session.state.generator.get_state())
        logits = iter(result.logits if result else ())
        yield [item if isinstance(item, Outcome) else Outcome.of(item, next(logits), result) for item in frames]


def may_stand_alone(session: Session) -> bool:
    """Whether each batch is predicted as if it were the only one, unless the method draws random numbers."""
    return session.method.episodic and session.adapt_when == "always" and session.method.adapt_every == 1


def _predicted(session: Session, frame: Frame, passes: Passes) -> Outcome:
    """A frame's prediction after all passes."""
    started = perf_counter()
    logits = session.predict(frame.image)
    return Outcome.of(frame, logits, learnt=passes.of(frame.name, perf_counter() - started))


def _passes(session: Session, stream: Stream, batch: int) -> Passes:
    """Adapts over the whole stream until the mean watched loss per pass meets the stopping rule."""
    passes, losses = Passes(), list[float]()
    for _ in range(PASSES):
        watched: list[float] = []
        for frames in _batches(stream, batch):
            good = [frame for frame in frames if isinstance(frame, Frame)]
            if good:
                result = session.adapt(torch.stack([frame.image for frame in good]))
                passes.add([frame.name for frame in good], result)
                watched += filter(isfinite, result.watched[:1])
        if not watched:
            return passes
        losses.append(sum(watched) / len(watched))
        if reason := session.method.stopping.reason(losses):
            return passes.ended(reason)
    return passes.ended("cap")


def _batches(stream: Stream, batch: int) -> Iterator[list[Frame | Outcome]]:
    """Groups of `batch` frames; a new group also begins where the size changes."""
    items = (_read(stream, name) for name in stream.names)
    return grouped(items, batch, lambda item: item.image.shape if isinstance(item, Frame) else None)


def _read(stream: Stream, name: str) -> Frame | Outcome:
    try:
        return stream.read(name)
    except ImageError as error:
        return Outcome(name, failure=str(error))
