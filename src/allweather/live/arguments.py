"""What a live run may be made of, or one clear word about what came instead."""

from numbers import Integral
from pathlib import Path
from typing import Any

from allweather.errors import SettingsError
from allweather.models import Segmenter
from allweather.session import Session
from allweather.values import MOST_THREADS


def check_session(session: Any) -> Session:
    """What adapts.

    Raises:
        SettingsError: for anything but a session.
    """
    if isinstance(session, Session):
        return session
    hint = ', such as allweather.Session(model, "mall-domain")' if isinstance(session, Segmenter) else ""
    raise SettingsError(f"Live: expected a Session{hint}; got {_kind(session)}.")


def check_threads(threads: Any) -> tuple[int, int] | None:
    """Of predictor and learner; None where that is left to the run.

    Raises:
        SettingsError: for anything but two whole numbers of 1 to 1024.
    """
    if threads is None:
        return None
    both = tuple(threads) if isinstance(threads, tuple | list) else ()
    if len(both) != 2 or not all(map(_is_count, both)):
        raise SettingsError(
            f"Live.threads: expected (of the predictor, of the learner), two whole numbers of 1 to {MOST_THREADS} such "
            f"as (3, 1); got {threads!r:.60}."
        )
    return int(both[0]), int(both[1])


def check_own(source: Any, **given: Any) -> None:
    """Settings that a source opened before has already.

    Raises:
        SettingsError: for one that is given.
    """
    for name, value in given.items():
        if value is not None:
            raise SettingsError(
                f"Live.{name}: {type(source).__name__} is a Source, whose {name} is set where it is made. Leave it out."
            )


def check_record(record: Any) -> Path | None:
    """The file to write.

    Raises:
        SettingsError: for anything but its name.
    """
    if record is None or isinstance(record, str | Path):
        return None if record is None else Path(record)
    raise SettingsError(f"Live.record: expected a file's name, got {record!r:.60}.")


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= MOST_THREADS


def _kind(value: Any) -> str:
    return "None" if value is None else f"one of type {type(value).__name__}"
