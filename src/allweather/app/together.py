"""`allweather adapt` under torchrun: one network learns on all ranks, and the first one keeps the record."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer

from allweather.app.console import (
    DONE,
    INTERRUPTED,
    SOME_FAILED,
    USER_MISTAKE,
    narration,
    progress,
    rate,
    tell_done,
    tell_interrupted,
    warn,
)
from allweather.app.makings import Makings
from allweather.app.pictures import Kind, Pictures
from allweather.data.json_lines import each_json_line
from allweather.errors import AllWeatherError
from allweather.models.placing import device_of
from allweather.runs.decisions import spell
from allweather.runs.record_file import LINES
from allweather.scale.merged import MergedRecord
from allweather.scale.places import Place
from allweather.scale.ranked import TOGETHER, Along, check_options, go_along, parts_of, share
from allweather.scale.ranks import Ranks
from allweather.scale.streams import Source, damages
from allweather.scale.together import TogetherSession
from allweather.scale.work import Line


@dataclass(frozen=True)
class Together:
    """One run of all ranks, as this one sees it.

    Attributes:
        ranks: which one this is.
        sources: the streams of all.
        size: (width, height) that frames are resampled to; None keeps each one's own.
        save_every, threads: as on the command line.
    """

    ranks: Ranks
    sources: list[Source]
    size: tuple[int, int] | None
    save_every: int
    threads: int

    def run(
        self, makings: Makings, out: Path, head: dict[str, Any], resume: bool, kinds: tuple[Kind, ...],
        save_session: Path | None,
    ) -> int:  # fmt: skip
        """Goes along this rank's streams; the exit status.

        Raises:
            AllWeatherError: when a rank has ended, and for what no rank can do.
        """
        check_options(makings.batch, makings.protocol)
        torch.set_num_threads(self.threads)
        ranks, device = self.ranks, self.ranks.device(makings.device)
        mine = share(self.sources, ranks)
        session = TogetherSession(makings.model, makings.session.method, ranks, **makings.options)
        if makings.start is not None:
            session.load(makings.start)
        pictures = Pictures(out.absolute(), kinds)
        with ranks.joined(device):
            resume = resume or ranks.restarts > 0
            with self._record(out, head, resume, pictures, session) as record:
                done = frozenset(line["name"] for line in each_json_line(out / LINES) if "failure" not in line)
                self._meet(session)
                along = Along(out, pictures, self.save_every, self.size)
                finished = self._along(session, mine, along, done)
                self._meet(session)
                if record is not None:
                    failed = self._close(record, out, session, finished)
        if ranks.first and finished and save_session is not None:
            session.save(save_session)
        if not finished:
            return INTERRUPTED
        return SOME_FAILED if ranks.first and failed and not ranks.most else DONE

    def _record(
        self, out: Path, head: dict[str, Any], resume: bool, pictures: Pictures, session: TogetherSession
    ) -> AbstractContextManager[MergedRecord | None]:
        """The first rank's record, once all ranks know that it is open; nothing on the others.

        Raises:
            AllWeatherError: on the first rank, where it cannot be opened; the others end in silence, for one says why.
        """
        record: AbstractContextManager[MergedRecord | None] = nullcontext()
        fault = None
        if self.ranks.first:
            try:
                record = MergedRecord(
                    out, head | {"ranks": self.ranks.number}, resume, pictures.is_whole, parts_of(out)
                )
                if not resume:
                    Place(out, TOGETHER).remove()
            except AllWeatherError as error:
                fault = error
        if self._meet(session, fault is not None):
            raise fault or typer.Exit(USER_MISTAKE)
        return record

    def _meet(self, session: TogetherSession, fault: bool = False) -> bool:
        """Waits for all ranks; whether one of them has met a fault."""
        return self.ranks.largest(float(fault), device_of(session.model)) > 0

    def _along(self, session: TogetherSession, mine: Source, along: Along, done: frozenset[str]) -> bool:
        if not self.ranks.first:
            return go_along(session, self.ranks, mine, along, done)
        with progress() as bar:
            title = f"{session.method.name}, {len(self.sources)} streams, {self.ranks.number} ranks"
            row = bar.add_task(title, total=len(mine), rate="")

            def seen(line: Line) -> None:
                bar.advance(row)
                bar.update(row, rate=rate(bar.tasks[0].speed))

            return go_along(session, self.ranks, mine, along, done, seen)

    def _close(self, record: MergedRecord, out: Path, session: TogetherSession, finished: bool) -> bool:
        """Gathers all ranks' lines; whether a frame has no prediction, or a video lacks some."""
        for part in parts_of(out):
            for name in record.keep(each_json_line(part)):
                warn(record.failures[name])
            part.unlink()
        if not finished:
            record.close()
            tell_interrupted(len(record.done))
            return True
        damage = damages(self.sources)
        record.finish({"digest": session.parameters_digest(), **({"damage": damage} if damage else {})})
        told = f"{len(record.done)} of {sum(map(len, self.sources))} images of {self.ranks.number} ranks"
        tell_done(told, out, [spell(record.decisions)], damage, record.failures)
        if record.failures and self.ranks.most:
            narration.print("all else is done: exit status 0, for torchrun --max-restarts begins anew after 1.")
        return bool(record.failures or damage)
