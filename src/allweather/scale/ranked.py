"""One rank's way along its stream while all ranks learn one model: in step with the others, saved, resumable."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from allweather.classes import ClassSet
from allweather.data.json_lines import JsonLines
from allweather.data.stream import Stream
from allweather.errors import ImageError, SettingsError
from allweather.models.placing import device_of
from allweather.runs.evaluate import Outcome
from allweather.runs.overlap import Ahead, Behind
from allweather.scale.places import Place
from allweather.scale.ranks import RankLost, Ranks
from allweather.scale.streams import Source
from allweather.scale.together import TogetherSession
from allweather.scale.work import SAVE_EVERY, THREADS, Line

TOGETHER = "together"  # what the saved session is called
CHECK_EVERY = 50  # steps between two comparisons of the ranks' parameters


def share(sources: Sequence[Source], ranks: Ranks) -> Source:
    """The frames that this rank goes along: whole streams, one after another, or every so-manieth frame of one.

    Raises:
        SettingsError: for fewer streams than ranks, where it is not one.
    """
    if len(sources) == 1:
        (source,) = sources
        return replace(source, frames=source.frames[ranks.rank :: ranks.number])
    if len(sources) < ranks.number:
        raise SettingsError(
            f"{len(sources)} streams for {ranks.number} ranks: expected at least one each, or a single stream that is "
            f"dealt out. Start torchrun with --nproc-per-node {len(sources)}."
        )
    mine = sources[ranks.rank :: ranks.number]
    if any(source.is_video for source in mine) and len(mine) > 1:
        raise SettingsError("a rank goes along one video: start as many ranks as there are videos.")
    frames, faults = (tuple(pair for source in mine for pair in getattr(source, kind)) for kind in ("frames", "faults"))
    return replace(mine[0], frames=frames, faults=faults)


def part_of(folder: Path, ranks: Ranks) -> Path:
    """Where a rank keeps its lines until they are gathered."""
    return folder / f"record.rank-{ranks.rank}.jsonl"


def parts_of(folder: Path) -> list[Path]:
    """The lines of all ranks that are not gathered yet."""
    return sorted(folder.glob("record.rank-*.jsonl"))


@dataclass(frozen=True)
class Along:
    """How a rank goes along.

    Attributes:
        folder: OUT.
        write: writes a frame's pictures.
        save_every: steps between two saved sessions.
        size: (width, height) that frames are resampled to; None keeps each one's own.
    """

    folder: Path
    write: Callable[[Outcome, ClassSet], Line]
    save_every: int = SAVE_EVERY
    size: tuple[int, int] | None = None


def go_along(
    session: TogetherSession, ranks: Ranks, source: Source, along: Along, done: frozenset[str],
    seen: Callable[[Line], None] = lambda line: None,
) -> bool:  # fmt: skip
    """Goes along this rank's frames in step with the others; whether it came to the end.

    False means that a rank was asked to end, and all did; the session is then saved.

    Args:
        done: frames that have their line; learnt from again, but not written.
        seen: hears each line when its pictures are on the disk.

    Raises:
        RankLost: when a rank has ended; the session of the last step that all made is then saved.
        AllWeatherError: where the ranks' parameters differ, or an output cannot be written.
    """
    place, device = Place(along.folder, TOGETHER), device_of(session.model)
    steps = int(ranks.largest(len(source), device))
    with ExitStack() as opened:
        asked = opened.enter_context(_asked_to_end())
        lines = opened.enter_context(JsonLines(part_of(along.folder, ranks)))
        ahead = opened.enter_context(Ahead(source.open(along.size), 1 if source.is_video else THREADS))

        def keep(line: Line) -> None:
            lines.append(line)
            seen(line)

        written: Behind[Outcome, Line] = opened.enter_context(
            Behind(lambda outcome: along.write(outcome, session.model.classes), keep, THREADS)
        )
        step = start = place.load(session)
        for lost in _passed(source, start, done, along.size):
            written.put(lost, 0)
        try:
            for step in range(start, steps):
                if ranks.largest(float(asked()), device):
                    _save(session, place, written, step)
                    return False
                if step > start and step % along.save_every == 0:
                    written.wait()
                    if ranks.largest(0.0, device) == 0 and ranks.first:  # after all have written
                        place.save(session, step)
                if step % CHECK_EVERY == 0:
                    session.check_equal()
                outcome = _one(session, ahead, source, step)
                if outcome is not None and outcome.name not in done:
                    written.put(outcome, outcome.nbytes)
            session.check_equal()
        except RankLost as error:
            _save(session, place, written, step)
            raise RankLost(
                f"rank {ranks.rank}: {error}. The session as of step {step} is in {along.folder / 'sessions'}; "
                "the same command with --resume goes on from there."
            ) from error
    if ranks.first:
        place.finish(session)
    return True


def _one(session: TogetherSession, stream: Stream, source: Source, step: int) -> Outcome | None:
    """One step; what became of this rank's frame, None where it has no more."""
    if step >= len(source):
        session.step(None)
        return None
    name = source.names[step]
    try:
        frame = stream.read(name)
    except ImageError as error:
        session.step(None)
        return Outcome(name, failure=str(error))
    result = session.step(frame.image)
    return None if result is None else Outcome.of(frame, result.logits, result)


def _passed(source: Source, start: int, done: frozenset[str], size: tuple[int, int] | None) -> Iterator[Outcome]:
    """Why frames that the session went past have no prediction."""
    missing = [name for name in source.names[:start] if name not in done]
    if not missing:
        return
    stream = source.open(size)
    for name in missing:
        reason = f"{name}: what was written of it is lost, and the session is past it; another --out begins anew"
        try:
            stream.read(name)
        except ImageError as error:
            reason = str(error)
        yield Outcome(name, failure=reason)


def _save(session: TogetherSession, place: Place, written: "Behind[Outcome, Line]", step: int) -> None:
    written.wait()
    place.save(session, step)


@contextmanager
def _asked_to_end() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and the first Ctrl-C are only noticed: the ranks must end at the same step."""
    asked: list[int] = []

    def notice(number: int, frame: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, notice) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_options(batch: int, protocol: str) -> None:
    """Refuses what ranks in step do not do.

    Raises:
        SettingsError: for batches, and for passes over whole streams.
    """
    if batch != 1 or protocol != "online":
        raise SettingsError(
            "one model on several ranks takes a frame of each at a time, online: leave out --batch and --protocol."
        )
