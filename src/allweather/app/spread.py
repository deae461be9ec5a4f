"""`allweather adapt` over many streams: who works on them, what goes to the workers, and what comes of it."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from allweather.app.console import (
    DONE,
    INTERRUPTED,
    SOME_FAILED,
    progress,
    rate,
    tell_done,
    tell_interrupted,
    warn,
)  # fmt: skip
from allweather.app.makings import Makings
from allweather.app.pictures import Kind, Pictures
from allweather.app.together import Together
from allweather.data import Stream
from allweather.data.folder import tell_others
from allweather.errors import ImageError, SettingsError
from allweather.runs.decisions import spell
from allweather.runs.evaluate import may_stand_alone
from allweather.scale.carried import Carried
from allweather.scale.conduct import Conducted, Conductor
from allweather.scale.engines import open_pool
from allweather.scale.merged import MergedRecord
from allweather.scale.places import Place
from allweather.scale.ranks import Ranks, launched
from allweather.scale.streams import Source, damages, joined, split
from allweather.scale.work import SAVE_EVERY, Adapting, Line, Stretch
from allweather.scale.workers import MOST, Workers, parse_workers

CHUNK = 16  # frames that a worker takes at a time where each stands alone


@dataclass
class Spread:
    """How the work is spread, as the command line says.

    Attributes:
        workers: who works.
        by: what is a stream.
        save_every, threads: as on the command line.
        ranks: what torchrun says of this process; None where it was not started by it.
        sources: the streams, once they are open.
        size: (width, height) that frames are resampled to; None keeps each one's own.
    """

    workers: Workers
    by: str
    save_every: int
    threads: int
    ranks: Ranks | None = None
    sources: list[Source] = field(default_factory=list)
    size: tuple[int, int] | None = None

    @classmethod
    def asked(
        cls, workers: str | None, ray: str | None, by: str | None, save_every: int, threads: int
    ) -> "Spread | None":
        """What the options ask for; None where none of them is given.

        Raises:
            SettingsError: for a number of workers that is none.
        """
        ranks = launched()
        if workers is None and ray is None and by is None and ranks is None:
            if (save_every, threads) != (SAVE_EVERY, 1):
                raise SettingsError(
                    "--save-every and --threads are of many streams: give --workers, --ray or --streams-by too, or "
                    "leave them out. A single stream takes the threads that OMP_NUM_THREADS says."
                )
            return None
        if ranks is not None and (workers or ray):
            raise SettingsError("under torchrun every rank is a worker: leave out --workers and --ray.")
        return cls(parse_workers(workers, ray, threads), by or "folder", save_every, threads, ranks)

    def open(self, inputs: list[Path], dataset: str | None, size: tuple[int, int] | None, film: object) -> Stream:
        """All frames of all streams.

        Raises:
            AllWeatherError: for inputs that are no streams, and for options that many streams do not have.
        """
        if dataset is not None:
            raise SettingsError(
                "--dataset is one stream: leave it out, and give folders, or --streams-by manifest.csv."
            )
        if film:
            raise SettingsError("many streams give no film: leave out --panels and --film-rate, or run each alone.")
        self.sources, self.size = split(inputs, self.by), size
        if self.ranks is None or self.ranks.first:
            tell_others(inputs)
        return joined(self.sources, size)

    def device(self, asked: str) -> str:
        """Where this process has the network: the rank's device, or the CPU, from where it goes to the workers."""
        return "cpu" if self.ranks is None else self.ranks.device(asked)

    def head(self) -> dict[str, Any]:
        """What the record says of the streams."""
        return {"streams": {source.name: len(source) for source in self.sources}, "threads": self.threads}

    def run(
        self, makings: Makings, out: Path, head: dict[str, Any], resume: bool, kinds: tuple[Kind, ...],
        save_session: Path | None,
    ) -> int:  # fmt: skip
        """Does all streams; the exit status.

        Raises:
            AllWeatherError: for what would meet every stream alike.
        """
        if "video" in kinds:
            raise SettingsError("many streams give no film: leave video out of --write, or run each alone.")
        if self.ranks is not None:
            together = Together(self.ranks, self.sources, self.size, self.save_every, self.threads)
            return together.run(makings, out, head, resume, kinds, save_session)
        if save_session is not None:
            raise SettingsError(f"every stream has its own session, in {out / 'sessions'}: leave out --save-session.")
        pictures = Pictures(out.absolute(), kinds)
        with MergedRecord(out, head, resume, pictures.is_whole) as record:
            apart = stands_alone(makings, self.sources, self.size)
            with _token(out) as token:
                task = self._task(makings, pictures, token)
                try:
                    conducted = self._conduct(task, record, makings, apart)
                except KeyboardInterrupt:
                    tell_interrupted(len(record.done))
                    return INTERRUPTED
            damage = damages(self.sources)
            lacks = {"damage": damage} if damage else {}
            record.finish({"given_up": conducted.given_up, "taken_up_again": conducted.again, **lacks})
        again = f"{conducted.again} times taken up again" if conducted.again else ""
        total, notes = sum(map(len, self.sources)), (spell(record.decisions), again)
        lost = [f"{title} was given up: {reason}" for title, reason in conducted.given_up.items()]
        images = f"{len(record.done)} of {total} images of {len(self.sources)} streams"
        tell_done(images, record.folder, notes, damage, record.failures, lost)
        return SOME_FAILED if record.failures or conducted.given_up or damage else DONE

    def _task(self, makings: Makings, pictures: Pictures, token: str) -> Adapting:
        method = makings.session.method
        carried = Carried.pack(makings.model, method, makings.options, makings.device, self.threads)
        start = None if makings.start is None else makings.start.absolute()
        along = self.size, makings.protocol, makings.batch, self.save_every, start
        return Adapting(carried, pictures, pictures.folder, token, *along)

    def _conduct(self, task: Adapting, record: MergedRecord, makings: Makings, apart: bool) -> Conducted:
        """Has everything done, with a progress bar over all workers."""
        with progress() as bar:
            title = f"{makings.session.method.name}, {len(self.sources)} streams, {self.workers}"
            row = bar.add_task(title, total=sum(map(len, self.sources)), completed=len(record.done), rate="")

            def keep(lines: list[Line]) -> None:
                for name in record.keep(lines):
                    warn(record.failures[name])
                bar.update(row, completed=len(record.done) + len(record.failures), rate=rate(bar.tasks[0].speed))

            if apart and self.workers.ray is not None:
                return self._map(task, record, makings.batch, keep)

            def again(job: Stretch, refused: Mapping[str, str]) -> Stretch:
                return job.again(record.known_of(job.source), refused)

            jobs = stretches(self.sources, record, apart, makings.batch)
            if not (first := list(islice(jobs, MOST))):
                return Conducted()
            with open_pool(task, self.workers, task.carried.device, len(first)) as pool:
                return Conductor(pool, keep, again).run(chain(first, jobs))

    def _map(self, task: Adapting, record: MergedRecord, batch: int, keep: Callable[[list[Line]], None]) -> Conducted:
        """Frames that stand alone, by `ray.data`; what has no line is tried again, one frame at a time."""
        from allweather.scale.on_ray import WAITING, map_frames  # takes seconds, and is an extra

        conducted, device = Conducted(), task.carried.device
        for attempt, (frames, waiting) in enumerate(((CHUNK, WAITING), (1, 1))):
            jobs = list(stretches(self.sources, record, True, batch, frames))
            if not jobs:
                return conducted
            conducted.again += len(jobs) if attempt else 0
            reasons: dict[str, str] = {}
            for lines, failed in map_frames(task, jobs, self.workers, device, task.folder, waiting):
                keep(lines)
                reasons |= failed
        known = record.done | record.failures.keys()
        left = [name for source in self.sources for name in source.names if name not in known]
        for name in left:
            keep([{"name": name, "failure": f"{name}: given up, {reasons.get(name, 'its worker ended each time')}"}])
        return conducted


def stretches(
    sources: list[Source], record: MergedRecord, apart: bool, batch: int, frames: int = CHUNK
) -> Iterator[Stretch]:
    """What there is to do: whole streams, the longest first, or frames that stand alone, some at a time."""
    if not apart:
        for source in sorted(sources, key=len, reverse=True):
            done = record.known_of(source)
            if len(done) < len(source) or not Place(record.folder, source.name).final.exists():
                yield Stretch(source, True, done)
        return
    chunk = max(1, frames // batch) * batch
    for source in sources:
        for start in range(0, len(source), len(source) if source.is_video else chunk):
            part = source if source.is_video else source.part(start, start + chunk)
            done = record.known_of(part)
            if len(done) < len(part):
                yield Stretch(part, False, done)


def stands_alone(makings: Makings, sources: list[Source], size: tuple[int, int] | None) -> bool:
    """Whether each batch is predicted as if it were the only one, so that any worker can take any of them.

    It is not where the method goes on along the stream, looks at the images before, or draws random numbers: that is
    found out with the first frame that can be read and learnt from.
    """
    session = makings.session
    if not may_stand_alone(session) or (makings.batch > 1 and size is None):
        return False
    stream = joined(sources, size)
    for name in stream.names:
        try:
            image = stream.read(name).image
        except ImageError:
            continue
        before = session.state.generator.get_state()
        result = session(image)
        same = torch.equal(before, session.state.generator.get_state())
        session.reset()
        if result.decision.kind != "skipped":  # else nothing had to be drawn
            return same
    return True


@contextmanager
def _token(folder: Path) -> Iterator[str]:
    """A file by which workers know that they see the folder."""
    path = folder / f".seen-{secrets.token_hex(8)}"
    path.touch()
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)
