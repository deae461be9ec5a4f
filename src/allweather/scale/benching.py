"""A worker's part of `bench`: one run of a plan at a time, its record written whole, as a single process does."""

from dataclasses import dataclass
from pathlib import Path

import torch

from allweather.errors import AllWeatherError
from allweather.runs.execute import Executed, LoadedNetwork, execute
from allweather.runs.plan import Plan, PlannedRun
from allweather.runs.record import versions
from allweather.scale.carried import check_versions
from allweather.scale.task import Do, Fatal, Message, Talk

TICK, RECORD = "tick", "record"  # frames done of a run; what its record says
EVERY = 20  # frames between two ticks


@dataclass(frozen=True)
class OneRun:
    """One run of a plan."""

    entry: PlannedRun

    @property
    def title(self) -> str:
        """The record's file, by which runs differ."""
        return self.entry.file


@dataclass(frozen=True)
class Benching:
    """What every worker of a `bench` gets.

    Attributes:
        out: where the records go; all workers must see it, on a file system whose locks hold between machines.
        labels: whether predictions are kept.
        threads: torch's in every worker.
        versions: of what can change a number, in the process that hands out the runs.
    """

    out: Path
    labels: bool
    threads: int
    versions: dict[str, str]

    @classmethod
    def here(cls, out: Path, labels: bool, threads: int) -> "Benching":
        """With this process's versions."""
        return cls(out.absolute(), labels, threads, versions())

    def open(self, index: int) -> Do:
        """As of `Task`."""
        torch.set_num_threads(self.threads)
        check_versions(self.versions)
        if torch.cuda.is_available():
            torch.cuda.set_device(index % torch.cuda.device_count())
        network = LoadedNetwork()

        def do(job: OneRun, talk: Talk) -> Message:
            def tick(entry: PlannedRun, done: int, total: int) -> None:
                if talk.stopping():
                    raise AllWeatherError("left, for the run was interrupted")
                if done % EVERY == 0 or done == total:
                    talk.say({TICK: (done, total)})

            def finished(entry: PlannedRun, record: object) -> None:
                talk.say({RECORD: record})

            plan = Plan((job.entry,))
            try:
                return vars(execute(plan, self.out, tick, finished, keep_labels=self.labels, network=network))
            except AllWeatherError as error:  # what one run alone meets is in what `execute` gives
                raise Fatal(str(error)) from error

        return do


def gather(results: dict[str, Message], given_up: dict[str, str]) -> Executed:
    """What became of all runs."""
    whole = Executed(failed=dict(given_up))
    for result in results.values():
        one = Executed(**result)
        whole.done += one.done
        whole.kept += one.kept
        whole.elsewhere += one.elsewhere
        whole.outdated |= one.outdated
        whole.failed |= one.failed
        whole.lost |= one.lost
    return whole
