"""One live run: the loop that takes the newest frame, predicts it with the newest state, and offers it for learning."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from allweather.data.stream import Frame
from allweather.finite import all_finite
from allweather.live.clock import Clock
from allweather.live.devices import OwnStream
from allweather.live.frame import Event, EventKind, Learnt, LiveFrame
from allweather.live.learner import Learner, LearnerLost, learnt_of, moved
from allweather.live.pace import Pace
from allweather.live.record import Record
from allweather.live.slot import Arrived, Slot
from allweather.live.totals import Totals
from allweather.models.placing import device_of
from allweather.session import Decision, Result, Session
from allweather.session.handover import serve
from allweather.session.snapshot import Snapshot

LOG = logging.getLogger(__name__)
READER_ENDS = 2.0  # seconds in which it does, unless a camera hangs; a process that ended while it decodes would abort


@dataclass
class Run:
    """What one run needs, and what it has come to.

    Attributes:
        label: of the source, in messages.
        slot: where frames wait to be predicted.
        predictor: predicts; where nothing learns beside it, it learns too, and predictions wait.
        learner: learns beside it; None where nothing does.
        nothing: why nothing learns at all; empty where something does.
        pace: which frames may be learnt from.
        record: the file of what is predicted, learnt and told; writes nothing where none was asked for.
        totals: counts so far.
        clock: the time, in seconds.
        begun: when the run began, by the clock.
        on_event: is told of each event; None where nobody is.
    """

    label: str
    slot: Slot
    predictor: Session
    learner: Learner | None
    nothing: str
    pace: Pace
    record: Record
    totals: Totals
    clock: Clock
    begun: float
    on_event: Callable[[Event], None] | None

    def __post_init__(self) -> None:
        self._stream = OwnStream(device_of(self.predictor.model), first=True)
        self._served: Snapshot | None = None  # kept until the next one: on a GPU it may still be being copied
        self._states, self._shown = 0, -1  # handed over; the index of the last frame predicted
        self._failed = 0  # frames since then that have no prediction
        self._last: float | None = None
        self._size: tuple[int, int] | None = None

    def frames(self) -> Iterator[LiveFrame]:
        """Every predicted frame, until the stream ends."""
        while (arrived := self.slot.take()) is not None:
            shown = self._show(arrived)
            if shown is not None:
                yield shown

    def close(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends reader, learner and record, whatever ended the run; the caller's session has what was learnt."""
        self.slot.close()
        self.totals.arrived = self.slot.arrived
        self.totals.dropped += self.slot.arrived - self._shown - 1 - self._failed
        why = "the stream ended" if kind is None else "stopped" if kind is GeneratorExit else "interrupted"
        try:
            if self.learner is not None:
                for learnt in self.learner.close():
                    self._learn(learnt)
                self._check_learner(self.learner)
        finally:
            self.record.close({"why": why, **self.totals.facts()}, "the stream ended before")
            self.slot.await_end(READER_ENDS)

    def notify(self, kind: EventKind, text: str) -> None:
        """Tells of an event; any thread may."""
        LOG.warning(text)
        event = Event(kind, text, self.clock.now() - self.begun)
        self.totals.happen(event)
        self.record.event(event)
        if self.on_event is not None:
            self.on_event(event)

    def _show(self, arrived: Arrived) -> LiveFrame | None:
        """The prediction of a frame; None where it has become too old to be shown, or is not finite."""
        self._take_news()
        started = self.clock.now()
        age, budget = started - arrived.at, self.pace.budget
        if budget is not None and age > budget:
            return None
        busy = self.learner is not None and self.learner.busy
        with self._stream.work():
            frame = arrived.make()
            result, learnt = self._predict(arrived.index, frame.image)
        ended = self.clock.now()
        self._measure(started, ended, busy, learnt)
        if not all_finite(result.logits):
            self._failed += 1
            self.notify("not-finite", f"{self.label}, {frame.name}: the network gives no finite numbers")
            return None
        why = "" if learnt is not None else self._offer(arrived.index, frame.image)
        shown = LiveFrame(
            arrived.index, frame, result, arrived.at - self.begun, age, ended - arrived.at,
            arrived.index - self._shown - 1 - self._failed, self._states, why, arrived.seconds,
        )  # fmt: skip
        self._tell(shown, learnt)
        return shown

    def _predict(self, index: int, image: Tensor) -> tuple[Result, Learnt | None]:
        """The prediction of an image; with learning from it first where predictions wait for that."""
        session = self.predictor
        if self.learner is None and not self.nothing and self.pace.due():
            self.pace.took()
            result = session(image)
            self._states += moved(result)
            return result, learnt_of(session, index, result, None)
        before = self.clock.now()
        logits = session.predict(image)
        seconds = self.clock.now() - before
        return Result(logits, (), (), 0, "none", Decision(), seconds, image, session.model.classes), None

    def _measure(self, started: float, ended: float, busy: bool, learnt: Learnt | None) -> None:
        pace = self.pace
        mean = pace.learning if learnt is not None else pace.beside if busy else pace.alone
        mean.add(ended - started)
        if self._last is not None:
            pace.between.add(ended - self._last)
        self._last = ended

    def _offer(self, index: int, image: Tensor) -> str:
        """Offers an image to the learner; why it is not learnt from, where it is not."""
        if self.nothing:
            return self.nothing
        if self.learner is None or not self.pace.due():
            return f"one in {self.pace.stride()} is learnt from"
        refused = self.learner.offer(index, image)
        if not refused:
            self.pace.took()
        return refused

    def _take_news(self) -> None:
        """Takes the newest state that was handed over, whole."""
        if self.learner is None:
            return
        for learnt in self.learner.news():
            self._learn(learnt)
            if learnt.state is not None:
                with self._stream.work():
                    serve(self.predictor, learnt.state)
                self._served = learnt.state
                self._states += 1
        self._check_learner(self.learner)

    def _learn(self, learnt: Learnt) -> None:
        self.pace.learning.add(learnt.seconds)
        self.totals.learn(learnt)
        self.record.learnt(learnt)

    def _check_learner(self, learner: Learner) -> None:
        """Goes on without a learner that was lost; what is wrong from the beginning ends the run.

        Raises:
            Exception: what ended the learning.
        """
        error = learner.failure()
        if error is None:
            return
        if not isinstance(error, LearnerLost) or not learner.began:
            raise error
        self.notify("learner", f"{str(error).split(' (')[0]}; predictions go on with what was learnt")

    def _tell(self, shown: LiveFrame, learnt: Learnt | None) -> None:
        self._look_at_size(shown.frame, shown.index)
        self._shown, self._failed = shown.index, 0
        self.totals.show(shown)
        self.totals.arrived = self.slot.arrived
        if learnt is not None:
            self.totals.learn(learnt)
            self.totals.states = self._states
        self.record.frame(shown, learnt)

    def _look_at_size(self, frame: Frame, index: int) -> None:
        if self._size is not None and self._size != frame.size:
            before, now = (f"{width}×{height}" for width, height in (self._size, frame.size))
            self.notify("size", f"{self.label}: frames are {now} from frame {index} on, {before} before")
        self._size = frame.size
