"""Sessions between runs of `allweather adapt`: where one goes in the end, and from which one begins."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from allweather import writing
from allweather.app.output import OF_RESULTS
from allweather.errors import AllWeatherError
from allweather.session import Session
from allweather.session.storage import check_replaceable


def check_place(path: Path | None, out: Path, read: Sequence[Path | None] = ()) -> None:
    """Refuses a place where no session could be written, before hours of work.

    Args:
        path: where it is to be; None for none.
        out: the folder of the results.
        read: files that the run reads, None for one that was not given. The session that it begins from is among them:
            once that is replaced, the run cannot be repeated or resumed.

    Raises:
        AllWeatherError: for a folder, a place that the results take, a file that is read or is no session, or one in a
            folder that cannot be made or written.
    """
    if path is None:
        return
    place, results = path.resolve(), out.resolve()
    if place == results or (place.is_relative_to(results) and place.relative_to(results).parts[0] in OF_RESULTS):
        raise AllWeatherError(
            f"--save-session {path}: the results go there. Name a file of its own, such as {out / 'adapted.session'}."
        )
    writing.check_apart(path, read)
    check_replaceable(path)
    writing.check_place(path)


def go_on_from(session: Session, path: Path | None) -> dict[str, Any]:
    """Loads the state that `path` holds; what the record says of it.

    Raises:
        CheckpointError: for a file that is none, or one of another network, method or setting.
    """
    if path is None:
        return {}
    session.load(path)
    with path.open("rb") as file:
        return {"from_session": {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}}
