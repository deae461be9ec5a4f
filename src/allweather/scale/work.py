"""A worker's part of `adapt`: a stretch of a stream, predicted and written, its session kept on the way."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from allweather.classes import ClassSet
from allweather.data.stream import Frame, Stream
from allweather.errors import AllWeatherError, ImageError
from allweather.runs.evaluate import Outcome, Protocol, groups, run
from allweather.runs.overlap import Ahead, Behind
from allweather.scale.carried import Carried
from allweather.scale.places import Place
from allweather.scale.streams import Source
from allweather.scale.task import BEGUN, LINES, Do, Fatal, Message, Talk
from allweather.session import Session

Line = dict[str, Any]  # of the record: a frame's name and what became of it
Write = Callable[[Outcome, ClassSet], Line]  # writes a frame's pictures
THREADS = 2  # that read, and that write, in each worker
SAVE_EVERY = 100  # frames


@dataclass(frozen=True)
class Stretch:
    """Frames for one worker: a whole stream along which the session goes on, or some frames that stand alone.

    Attributes:
        source: the frames.
        follows: whether the session goes on along them.
        done: names of frames that the record has already; not written again.
        refused: frames that ended workers before, and why; they count as unreadable.
        careful: each frame is announced before anything is done with it, and nothing is read ahead.
    """

    source: Source
    follows: bool
    done: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    careful: bool = False

    @property
    def title(self) -> str:
        """The stream's name, and for frames that stand alone the first one's."""
        return f"stream {self.source.name}" if self.follows else f"{self.source.names[0]} and what follows"

    def again(self, done: frozenset[str], refused: Mapping[str, str]) -> "Stretch":
        """The same for another attempt, in which the frame that ends a worker is found."""
        return replace(self, done=self.done | done, refused={**self.refused, **refused}, careful=True)


@dataclass(frozen=True)
class Adapting:
    """What every worker of an `adapt` gets.

    Attributes:
        carried: the session's makings.
        write: writes a frame's pictures.
        folder: OUT, which every worker must see.
        token: a file there that proves it.
        size: (width, height) that frames are resampled to; None keeps each one's own.
        protocol, batch: as of `run`.
        save_every: frames between two saved sessions of a stream.
        start: the session that every stream begins with; None is the source network.
    """

    carried: Carried
    write: Write
    folder: Path
    token: str
    size: tuple[int, int] | None = None
    protocol: Protocol = "online"
    batch: int = 1
    save_every: int = SAVE_EVERY
    start: Path | None = None

    def open(self, index: int) -> Do:
        """As of `Task`."""
        if not (self.folder / self.token).exists():
            raise AllWeatherError(
                f"a worker does not see {self.folder}: expected a folder on a file system that all machines share."
            )
        return _Worker(self, self.carried.session(index)).do


class _Worker:
    """One worker's session, at work on one stretch after another."""

    def __init__(self, task: Adapting, session: Session) -> None:
        self._task, self._session = task, session

    def do(self, stretch: Stretch, talk: Talk) -> Message:
        """Predicts and writes the frames; says each when it is on the disk."""
        place = Place(self._task.folder, stretch.source.name) if stretch.follows else None
        start = 0 if place is None else self._begin(stretch, place)
        with ExitStack() as opened:
            stream = self._stream(stretch.source.part(start), stretch, talk)
            if not stretch.careful:
                ahead = Ahead(stream, 1 if stretch.source.is_video else THREADS)
                stream = opened.enter_context(ahead)
            written: Behind[Outcome, Line] = opened.enter_context(
                Behind(self._write, lambda line: talk.say({LINES: [line]}), 1 if stretch.careful else THREADS)
            )
            position = self._along(stretch, stream, start, written, place, talk)
        if place is not None and position == len(stretch.source):
            place.finish(self._session)
        return {"position": position}

    def _begin(self, stretch: Stretch, place: Place) -> int:
        """The session at the stream's beginning, or as it was kept on the way, and where that is."""
        self._reset()
        if self._task.protocol != "online" and not self._session.method.episodic:
            return 0
        position = place.load(self._session)
        if position and not self._all_known(stretch, position):
            self._reset()
            return 0
        return position

    def _reset(self) -> None:
        self._session.reset()
        if self._task.start is not None:
            self._session.load(self._task.start)

    def _all_known(self, stretch: Stretch, position: int) -> bool:
        """Whether every frame up to there is done, or still cannot be read; else the stream has to begin anew."""
        missing = [name for name in stretch.source.names[:position] if name not in stretch.done]
        if not missing:
            return True
        stream = stretch.source.open(self._task.size, stretch.refused)
        return not any(_readable(stream, name) for name in missing)

    def _stream(self, source: Source, stretch: Stretch, talk: Talk) -> Stream:
        if not source.frames:
            return Stream([], lambda name: stretch.source.open(None).read(name))
        stream = source.open(self._task.size, stretch.refused)
        if not stretch.careful:
            return stream

        def read(name: str) -> Frame:
            talk.say({BEGUN: name})
            return stream.read(name)

        return Stream(source.names, read)

    def _along(
        self, stretch: Stretch, stream: Stream, start: int, written: "Behind[Outcome, Line]", place: Place | None,
        talk: Talk,
    ) -> int:  # fmt: skip
        """Goes along the frames; the place where it stopped."""
        position = saved = start
        for group in self._groups(stream, stretch):
            for outcome in group:
                if outcome.name not in stretch.done:
                    written.put(outcome, outcome.nbytes)
            position += len(group)
            leaving = talk.stopping()
            if stretch.careful or leaving:
                written.wait()
            due = position - saved >= self._task.save_every or leaving
            if place is not None and due and self._saves and position < len(stretch.source):
                written.wait()
                place.save(self._session, position)
                saved = position
            if leaving:
                break
        written.wait()
        return position

    @property
    def _saves(self) -> bool:
        """Whether a session on the way is worth anything: passes over a whole stream begin anew."""
        return self._task.protocol == "online" or self._session.method.episodic

    def _groups(self, stream: Stream, stretch: Stretch) -> Iterator[list[Outcome]]:
        if self._saves:
            alone = None if stretch.follows else True
            yield from groups(self._session, stream, self._task.batch, stretch.done, alone)
            return
        for outcome in run(self._session, stream, self._task.protocol, self._task.batch):
            yield [outcome]

    def _write(self, outcome: Outcome) -> Line:
        try:
            return self._task.write(outcome, self._session.model.classes)
        except ImageError as error:
            return {"name": outcome.name, "failure": str(error)}
        except AllWeatherError as error:
            raise Fatal(str(error)) from error


def _readable(stream: Stream, name: str) -> bool:
    try:
        stream.read(name)
    except ImageError:
        return False
    return True
