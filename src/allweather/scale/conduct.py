"""Handing jobs out and hearing what becomes of them: workers that end are replaced, what they were at is done again."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from allweather.errors import AllWeatherError
from allweather.scale.pool import Event, Pool
from allweather.scale.task import BEGUN, DONE, FAILED, FATAL, LINES, SURE
from allweather.scale.work import Line

LOG = logging.getLogger(__name__)
PATIENCE = 30.0  # seconds for workers to leave their jobs after an interruption; more where frames take long
TICK = 0.5  # seconds that one round waits for a message, at most
RETRIES = 2  # attempts beyond the first that a job or a frame has


@dataclass
class Attempts:
    """What is known of one job that did not end well at first.

    Attributes:
        number: attempts so far.
        vain: attempts in a row that brought nothing.
        begun: frames that were announced in this attempt and have no line yet.
        blamed: how often each frame was at work when a worker ended.
        refused: frames that are not to be tried again, and why.
    """

    number: int = 0
    vain: int = 0
    begun: list[str] = field(default_factory=list)
    blamed: Counter[str] = field(default_factory=Counter)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass
class Conducted:
    """What came of all jobs.

    Attributes:
        given_up: why a job was given up, by its title.
        again: attempts that had to be made again.
        results: what each job gave in the end, by its title.
    """

    given_up: dict[str, str] = field(default_factory=dict)
    again: int = 0
    results: dict[str, Any] = field(default_factory=dict)


class Conductor:
    """Keeps every worker of a pool at work until all jobs are done.

    A job whose worker ends is done again, carefully: the frame at which workers keep ending is found, and is left out.

    Args:
        pool: the workers.
        keep: takes lines of the record as they come.
        again: makes a job anew for another attempt, without the frames that are refused.
        hear: takes all other messages of a job.
        retries: attempts beyond the first that a job or a frame has.
    """

    def __init__(
        self,
        pool: Pool,
        keep: Callable[[list[Line]], None],
        again: Callable[[Any, Mapping[str, str]], Any],
        hear: Callable[[Event], None] = lambda event: None,
        retries: int = RETRIES,
    ) -> None:
        self._pool, self._keep, self._again, self._hear, self._retries = pool, keep, again, hear, retries
        self._waiting: deque[Any] = deque()
        self._attempts: dict[str, Attempts] = {}
        self._slowest = 0.0
        self.result = Conducted()

    def run(self, jobs: Iterable[Any]) -> Conducted:
        """Does all jobs.

        Raises:
            AllWeatherError: for what would meet every job alike.
            KeyboardInterrupt: after all workers have left their jobs, and what they had done is kept.
        """
        coming = iter(jobs)
        try:
            while self._hand_out(coming) or self._pool.busy:
                for event in self._pool.events(TICK):
                    self._take(event)
        except KeyboardInterrupt:
            self._leave()
            raise
        return self.result

    def _hand_out(self, coming: Iterator[Any]) -> bool:
        """Gives jobs to idle workers; whether any was given."""
        given = False
        while self._pool.idle:
            job = self._waiting.popleft() if self._waiting else next(coming, None)
            if job is None:
                break
            self._pool.begin(job)
            given = True
        return given

    def _take(self, event: Event) -> None:
        message = event.message
        if FATAL in message:
            raise AllWeatherError(message[FATAL])
        if LINES in message:
            self._lines(event.job, message[LINES])
        elif BEGUN in message:
            self._attempts[event.job.title].begun.append(message[BEGUN])
        elif DONE in message:
            self._attempts.pop(event.job.title, None)
            self.result.results[event.job.title] = message[DONE]
        elif FAILED in message:
            self._failed(event.job, message[FAILED], sure=bool(message.get(SURE)))
        else:
            self._hear(event)

    def _lines(self, job: Any, lines: list[Line]) -> None:
        self._keep(lines)
        self._slowest = max(self._slowest, sum(line.get("seconds", 0.0) for line in lines))  # of a batch
        if attempts := self._attempts.get(job.title):
            names = {line["name"] for line in lines}
            attempts.vain, attempts.begun = 0, [name for name in attempts.begun if name not in names]

    def _failed(self, job: Any, reason: str, sure: bool) -> None:
        """Another attempt, or the end of this job; `sure` says that another would end alike."""
        attempts = self._attempts.setdefault(job.title, Attempts())
        attempts.number += 1
        hopeless = sure and attempts.number > 1
        if not attempts.refused.keys() >= set(attempts.begun):
            self._blame(attempts, reason, hopeless)
        else:
            attempts.vain += 1
            if hopeless or attempts.vain > self._retries:
                del self._attempts[job.title]
                self.result.given_up[job.title] = reason
                return
        LOG.warning("%s: %s; it is taken up again where it was left", job.title, reason.rstrip("."))
        self.result.again += 1
        self._waiting.append(self._again(job, attempts.refused))

    def _blame(self, attempts: Attempts, reason: str, hopeless: bool) -> None:
        attempts.blamed.update(attempts.begun)
        for name in attempts.begun:
            if hopeless or attempts.blamed[name] >= self._retries:
                attempts.refused[name] = f"given up after {attempts.number} attempts: {reason}"
        attempts.begun = []

    def _leave(self) -> None:
        """Lets every worker come to a place where nothing is lost, and keeps what it says on the way."""
        self._pool.stop()
        end = monotonic() + max(PATIENCE, 3 * self._slowest)
        while self._pool.busy and monotonic() < end:
            for event in self._pool.events(TICK):
                if LINES in event.message:
                    self._keep(event.message[LINES])
        if self._pool.busy:
            LOG.warning("%d workers had no time to save", self._pool.busy)
