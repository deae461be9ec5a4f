"""Which engine runs the workers."""

import os

import torch

from allweather.scale.pool import Pool
from allweather.scale.processes import ProcessPool
from allweather.scale.task import Task
from allweather.scale.workers import Workers


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
