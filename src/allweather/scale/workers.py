"""Who works: how many workers, with how many threads, on which engine."""

from dataclasses import dataclass

from allweather.errors import SettingsError

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
