"""The door to live: a source and a session, what may be late, and how often to learn."""

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from allweather.errors import SettingsError, check_known
from allweather.interrupts import interruptions_wait
from allweather.live.arguments import check_own, check_record, check_session, check_threads
from allweather.live.clock import Clock
from allweather.live.devices import split_threads, thread_count
from allweather.live.frame import Event, LiveFrame
from allweather.live.learner import Learner, SessionPupil
from allweather.live.naming import open_source
from allweather.live.pace import Pace
from allweather.live.process import ProcessPupil
from allweather.live.reader import Reader
from allweather.live.record import Record
from allweather.live.run import Run
from allweather.live.slot import Slot
from allweather.live.sources import Source, check_positive
from allweather.live.totals import Totals
from allweather.models.placing import device_of
from allweather.session import Session
from allweather.sizes import check_asked
from allweather.values import check_flag, check_number

Where = Literal["auto", "process", "thread"]


class Live:
    """Predicts a stream as it comes, while the network learns beside it. Predictions never wait for learning.

    A predictor takes the newest frame; frames that it had no time for are dropped and counted. A learner adapts to the
    frames that it has time for and hands over whole states, after the guard has accepted them. At the end the session
    has what was learnt.

    Args:
        source: a video file, played at its rate; a folder of images; an address (`rtsp://…`, `http://…`); `camera:0`;
            or a `Source`.
        session: what adapts. A method that returns to the source after each image needs `wait`, because it has no state
            to hand over.
        budget: maximum age of a frame when its prediction begins, in seconds; older frames are dropped. None drops only
            frames that a newer one has replaced.
        adapt_every: learns from at most one frame in this many; `auto`: from as many as the budget allows.
        wait: predictions wait for learning. Without a budget and with `adapt_every=1`, a file or folder then gives the
            results of a session that is called frame by frame.
        every_frame: a file or folder waits for the predictions instead of playing at its rate: nothing is dropped.
            Implied by `wait` without a budget. A budget, which drops what has waited too long, excludes it.
        size: (width, height) in pixels that frames are resampled to; None keeps each frame's size.
        rate: frames per second of a file or folder; None: the file's own, 10 for a folder.
        stall: seconds without a picture after which a stream counts as broken.
        reconnect: maximum attempts in a row to connect to a broken stream again, after growing pauses; 0: none.
        record: a JSON Lines file to write, one line per frame; it must not exist.
        learner: where to learn: `process`, for predictions on a CPU; `thread`, with its own CUDA stream on a GPU;
            `auto` chooses by the device.
        threads: number of torch threads of the predictor and of the learner, on a CPU; None gives the learner a
            quarter.
        on_event: called with each event (a broken stream, an unreadable picture), from any thread. The log named
            `allweather` has them as warnings in any case.
        clock: time and threads; for tests.

    Attributes:
        totals: counts, decisions and latencies of this run, or of the last one.

    Raises:
        SettingsError: for a value that is not allowed, or settings that exclude each other.
        InputError: when there is no such source.
        MissingLibraryError: when the library that reads the source is not installed.

    Example:
        >>> import allweather as aw
        >>> session = aw.Session(aw.load_model("demo:streetnet"), "source")
        >>> for shown in aw.Live("drive.mp4", session, every_frame=True):  # or "rtsp://HOST/PATH", budget=0.04
        ...     labels = shown.result.labels  # H×W, or what else each frame is wanted for
    """

    def __init__(
        self,
        source: str | Path | Source,
        session: Session,
        *,
        budget: float | None = None,
        adapt_every: int | Literal["auto"] = "auto",
        wait: bool = False,
        every_frame: bool = False,
        size: tuple[int, int] | None = None,
        rate: float | None = None,
        stall: float = 30.0,
        reconnect: int = 8,
        record: Path | str | None = None,
        learner: Where = "auto",
        threads: tuple[int, int] | None = None,
        on_event: Callable[[Event], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_known("learner", learner, get_args(Where))
        for name, value in (("budget", budget), ("rate", rate), ("stall", stall)):
            check_positive(name, value)
        check_asked(size)
        if on_event is not None and not callable(on_event):
            raise SettingsError(f"Live.on_event: expected a function of an event, got {on_event!r:.60}.")
        self.session, self.budget = check_session(session), budget
        if adapt_every != "auto":
            check_number("Live.adapt_every (or 'auto')", adapt_every, whole=True, low=1)
        check_number("Live.reconnect", reconnect, whole=True, low=0)
        self.adapt_every: int | Literal["auto"] = adapt_every if adapt_every == "auto" else int(adapt_every)
        for name, switch in (("wait", wait), ("every_frame", every_frame)):
            check_flag(f"Live.{name}", switch)
        if every_frame and budget is not None:
            raise SettingsError(
                f"Live.every_frame: nothing is dropped with it, and a budget of {budget:g} s drops what has waited "
                "longer. Leave one of them out."
            )
        self.wait = wait
        self.reconnect, self.threads = int(reconnect), check_threads(threads)
        self.record, self.learner = check_record(record), learner
        self.on_event, self.clock = on_event, clock or Clock()
        self._nothing = _nothing_to_learn(session, wait)
        if isinstance(source, Source):
            check_own(source, size=size, rate=rate)
            self.source = source
        else:
            self.source = open_source(source, size, rate, stall)
        self.every_frame = every_frame or (wait and budget is None and not self.source.endless)
        if every_frame and self.source.endless:
            raise SettingsError(f"Live.every_frame: {self.source.label} does not wait. Leave it out.")
        self.totals = Totals()

    def __iter__(self) -> Generator[LiveFrame, None, None]:
        """Plays the source from its beginning, or from now on; the session goes on from where it is.

        Raises:
            InputError: when the source cannot be opened, or its first connection is refused.
            AllWeatherError: when the record exists already or cannot be written, or learning fails.
        """
        threads = self._threads()
        slot, self.totals = Slot(self.clock, keep=self.every_frame), Totals()
        reader = Reader(self.source, slot, self.clock, paced=not self.every_frame, tries=self.reconnect)
        with thread_count(threads and threads[0]), ExitStack() as ending:
            with interruptions_wait():  # a run has begun with all its parts, or not at all
                run = self._begin(reader, slot, threads)
                ending.push(run.close)
            yield from run.frames()

    def _begin(self, reader: Reader, slot: Slot, threads: tuple[int, int] | None) -> Run:
        """A run with its record, its learner and its reader at work."""
        record = Record(self.record, self._head())
        beside = not (self.wait or self._nothing)
        try:
            predictor = self._copy() if beside else self.session
            learner = self._start_learner(threads) if beside else None
        except BaseException:
            record.discard()
            raise
        run = Run(
            reader.source.label, slot, predictor, learner, self._nothing,
            Pace(self.adapt_every, self.budget, self.wait), record, self.totals, self.clock, self.clock.now(),
            self.on_event,
        )  # fmt: skip
        reader.notify = run.notify
        self.clock.start(reader.run, "allweather reader")
        return run

    def _copy(self) -> Session:
        """What predicts while the session learns."""
        try:
            return deepcopy(self.session)
        except SettingsError as error:
            reason = str(error).partition(". ")[0]
            raise SettingsError(
                f"{reason}: live learns beside what predicts, a copy. Take turns: wait=True, --wait."
            ) from error

    def _start_learner(self, threads: tuple[int, int] | None) -> Learner:
        if self._where() == "process":
            return Learner(ProcessPupil(self.session, threads[1] if threads else 1), self.clock)
        return Learner(SessionPupil(self.session, threads and threads[1]), self.clock)

    def _where(self) -> Where:
        """Where to learn; `thread` and `process` as asked."""
        if self.learner != "auto":
            return self.learner
        return "process" if device_of(self.session.model).type == "cpu" else "thread"

    def _threads(self) -> tuple[int, int] | None:
        """Of predictor and learner; None leaves them, where nothing learns beside predictions or a GPU computes."""
        if self.threads is not None:
            return self.threads
        if self.wait or self._nothing or device_of(self.session.model).type != "cpu":
            return None
        return split_threads(torch.get_num_threads())

    def _head(self) -> Mapping[str, Any]:
        """What the record says first: all that made the run."""
        weights = self.session.model.provenance
        return {
            "source": self.source.label,
            "model": self.session.model.name,
            "sha256": None if weights is None else weights.sha256,
            "session": self.session.settings(),
            "budget": self.budget,
            "adapt_every": self.adapt_every,
            "wait": self.wait,
            "every_frame": self.every_frame,
            "learner": "none" if self._nothing else "waited for" if self.wait else self._where(),
            "threads": self._threads(),
            "versions": {"allweather": version("allweather"), "torch": torch.__version__},
            "cores": os.cpu_count(),
        }


def _nothing_to_learn(session: Session, wait: bool) -> str:
    """Why the session learns nothing; empty where it does.

    Raises:
        SettingsError: where it learns, but what it learns from one image is of no use to the next.
    """
    method = session.method
    if not session.state.tensors() or (method.episodic and not session.state.parameters):
        return f"{method.name} learns nothing"
    if wait:
        return ""
    if method.episodic:
        raise SettingsError(
            f"{method.name} adapts to each image anew, so its prediction has to wait: there is no state to hand over. "
            "Choose wait (--wait), episodic=False (--set episodic=false), or a method that goes on along the stream, "
            "such as mall-domain."
        )
    if session.adapt_when == "shift":
        raise SettingsError(
            "adapt_when='shift' chooses a network for each image, which its prediction has to wait for. Choose wait, "
            "or adapt_when='always'."
        )
    return ""
