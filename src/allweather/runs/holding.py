"""A place that one run at a time fills, be it of this process or another."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from allweather.errors import AllWeatherError
from allweather.writing import real, unwritable


def lock_beside(path: Path) -> filelock.BaseFileLock:
    """What whoever writes `path` holds; the system frees it when the process ends, however it does."""
    return filelock.FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)


@contextmanager
def held(header: Path) -> Iterator[None]:
    """Keeps other runs from filling the header's folder meanwhile; a missing folder is made.

    Raises:
        AllWeatherError: when another run fills it, or nothing can be written there.
    """
    lock = lock_beside(header)
    try:
        real(header.parent).mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise AllWeatherError(
            f"{header.parent} is being filled by another run. Wait until that has ended, or choose another --out."
        ) from error
    except OSError as error:
        raise unwritable(header, error) from error
    try:
        yield
    finally:
        lock.release()
