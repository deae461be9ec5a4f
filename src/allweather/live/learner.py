"""The learner: adapts in a thread of its own on the frames it has time for, and hands over whole states."""

from threading import Condition
from typing import Protocol

import torch
from torch import Tensor

from allweather.errors import AllWeatherError
from allweather.live.clock import Clock
from allweather.live.devices import OwnStream
from allweather.live.frame import Learnt
from allweather.models.placing import device_of
from allweather.plugins import FAULTS
from allweather.session import Result, Session
from allweather.session.handover import state_of
from allweather.session.snapshot import Snapshot


class Pupil(Protocol):
    """What learns from one frame at a time."""

    def begin(self) -> None:
        """Gets ready."""

    def learn(self, index: int, image: Tensor) -> Learnt:
        """Adapts to an image 3×H×W; what it says of the state holds after the guard's verdict."""

    def finish(self) -> None:
        """Leaves in the caller's session what was learnt."""

    def abandon(self) -> None:
        """Gives up getting ready, asked for by another thread."""


class SessionPupil:
    """Learns in the calling thread, with the caller's own session.

    Args:
        session: what adapts.
        threads: of torch, for each operation; None leaves them.
    """

    def __init__(self, session: Session, threads: int | None = None) -> None:
        self._session, self._threads = session, threads

    def begin(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)  # of this thread alone
        self._stream = OwnStream(device_of(self._session.model), first=False)

    def learn(self, index: int, image: Tensor) -> Learnt:
        with self._stream.work():
            result = self._session(image)
            state = state_after(self._session, result)
        return learnt_of(self._session, index, result, state)

    def finish(self) -> None:
        return

    def abandon(self) -> None:
        return


def moved(result: Result) -> bool:
    """Whether a step may have changed what predictions are made with."""
    return result.decision.kind not in ("skipped", "resting") and result.stop != "no shift"


def state_after(session: Session, result: Result) -> Snapshot | None:
    """What predictions are to be made with after a step; None where it is what it was before.

    The guard has spoken by then: a step that it took back is not in it, and after a reset it is the source network.
    """
    return state_of(session) if moved(result) else None


def learnt_of(session: Session, index: int, result: Result, state: Snapshot | None) -> Learnt:
    """What is said of one step: where parameters move, nothing is learnt without an update; memory is none."""
    adapted = moved(result) and (not session.state.parameters or result.iterations > 0)
    return Learnt(index, result.decision, result.iterations, result.losses, result.seconds, adapted, state)


class Learner:
    """A pupil at work in a thread: it takes a frame when it has time, and its news wait until they are asked for.

    Args:
        pupil: what learns.
        clock: what waits.
    """

    def __init__(self, pupil: Pupil, clock: Clock) -> None:
        self._pupil, self._clock = pupil, clock
        self._changed = Condition()
        self._job: tuple[int, Tensor] | None = None
        self._news: list[Learnt] = []
        self._error: Exception | None = None
        self._ready = self._busy = self._closing = self._ended = False
        clock.start(self._run, "allweather learner")

    @property
    def busy(self) -> bool:
        """Whether it is learning now."""
        return self._busy

    @property
    def began(self) -> bool:
        """Whether it has ever been ready to learn."""
        return self._ready

    def offer(self, index: int, image: Tensor) -> str:
        """Gives it an image 3×H×W to learn from, which must not change any more; why not where it does not take it."""
        with self._changed:
            if self._ended:
                return "learning has ended"
            if not self._ready:
                return "the learner is starting"
            if self._busy:
                return "the learner is busy"
            self._job, self._busy = (index, image), True
            self._changed.notify_all()
        return ""

    def news(self) -> list[Learnt]:
        """What was learnt since the last call, in order."""
        with self._changed:
            news, self._news = self._news, []
        return news

    def failure(self) -> Exception | None:
        """What ended the learning before its time; None where nothing did, or it was asked for before."""
        with self._changed:
            error, self._error = self._error, None
        return error

    def close(self) -> list[Learnt]:
        """Ends what it is at, and leaves in the caller's session what was learnt; the last news.

        One that is still starting is not waited for.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            starting = not (self._ready or self._ended)
        if starting:
            self._pupil.abandon()
        with self._changed:
            self._clock.wait(self._changed, lambda: self._ended)
            self._error = None if starting else self._error
        return self.news()

    def _run(self) -> None:
        try:
            self._pupil.begin()
            self._note(ready=True)
            while (job := self._next()) is not None:
                self._learn(*job)
            self._pupil.finish()
        except FAULTS as error:
            self._error = error
        finally:
            self._note(ended=True)

    def _learn(self, index: int, image: Tensor) -> None:
        learnt = self._pupil.learn(index, image)
        with self._changed:
            self._news.append(learnt)
            self._busy = False
            self._changed.notify_all()

    def _next(self) -> tuple[int, Tensor] | None:
        with self._changed:
            self._clock.wait(self._changed, lambda: self._job is not None or self._closing)
            job, self._job = self._job, None
            return job

    def _note(self, *, ready: bool = False, ended: bool = False) -> None:
        with self._changed:
            self._ready, self._ended = self._ready or ready, self._ended or ended
            self._busy = self._busy and not ended
            self._changed.notify_all()


class LearnerLost(AllWeatherError):
    """The learner's process ended by itself."""
