"""Which engine runs the workers, and how many there are."""

import os
from dataclasses import dataclass

import torch

from allweather.errors import SettingsError
from allweather.scale.pool import Pool
from allweather.scale.processes import ProcessPool
from allweather.scale.task import Task

MOST = 1024  # workers of one machine


@dataclass(frozen=True)
class Workers:
    """Who works.

    Attributes:
        number: of workers; None is one a core or GPU of whatever there is.
        threads: torch's in each.
        ray: the address of a cluster, `auto`, or `local`; None are processes of this machine.
    """

    number: int | None
    threads: int = 1
    ray: str | None = None

    def __str__(self) -> str:
        """As the progress display says it."""
        return f"{self.number or 'all'} workers" + (" of Ray" if self.ray else "")


def parse_workers(number: str | None, ray: str | None, threads: int) -> Workers:
    """What `--workers` and `--ray` say.

    Raises:
        SettingsError: for a number that is none.
    """
    if number is None or number == "auto":
        return Workers(None, threads, ray)
    if not number.isdecimal() or not 1 <= int(number) <= MOST:
        raise SettingsError(f"--workers: expected a number of 1 to {MOST}, or auto; got '{number}'.")
    return Workers(int(number), threads, ray)


def open_pool(task: Task, workers: Workers, device: str, jobs: int) -> Pool:
    """The workers, started, no more than there are jobs.

    Raises:
        MissingLibraryError: for Ray where it is not installed.
        AllWeatherError: for a cluster that does not answer.
    """
    if workers.ray is not None:
        from allweather.scale.on_ray import RayPool  # takes seconds, and is an extra

        return RayPool(task, workers, device)
    return ProcessPool(task, min(jobs, workers.number or processes(workers.threads, device)))


def processes(threads: int, device: str) -> int:
    """How many workers this machine has room for."""
    if device.startswith("cuda"):
        return max(1, torch.cuda.device_count())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)
