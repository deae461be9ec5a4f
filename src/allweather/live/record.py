"""The record of a live run: one JSON line per frame, written as soon as all of it is known."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, TextIO

from allweather.errors import AllWeatherError
from allweather.live.frame import Event, Learnt, LiveFrame
from allweather.writing import file_at, unwritable

FORMAT = 1
FULL = "What was written before is complete. Make room, and remove it or choose another --record."


class Record:
    """A file of JSON lines, each with its `kind`: `run` (once, first), `frame`, `event`, `end` (once, last).

    The line of a frame that is learnt from is written when that is done, after those predicted meanwhile.

    Args:
        path: the file, which must not exist yet; None records nothing.
        head: what the first line says.

    Raises:
        AllWeatherError: when it exists, or cannot be written; lines written before are whole.
    """

    def __init__(self, path: Path | None, head: Mapping[str, Any]) -> None:
        self._path, self._file, self._lock = path, _create(path), Lock()
        self._waiting: dict[int, dict[str, Any]] = {}
        try:
            self._write("run", {"format": FORMAT, **head})
        except AllWeatherError:
            self.discard()
            raise

    def frame(self, shown: LiveFrame, learnt: Learnt | None = None) -> None:
        """A predicted frame; without `why` and `learnt` it waits for what is learnt from it."""
        facts = shown.facts()
        if learnt is not None:
            facts |= learnt.facts()
        elif not shown.why:
            self._waiting[shown.index] = facts
            return
        self._write("frame", facts)

    def learnt(self, learnt: Learnt) -> None:
        """What became of a frame that waits; nothing of one whose line an error kept from being written."""
        facts = self._waiting.pop(learnt.index, None)
        if facts is not None:
            self._write("frame", facts | learnt.facts())

    def event(self, event: Event) -> None:
        """Something else that happened; any thread may say so."""
        self._write("event", {"event": event.kind, "text": event.text, "at": round(event.seconds, 6)})

    def close(self, end: Mapping[str, Any], why: str) -> None:
        """The last line; frames still waiting were not learnt from, for the reason given."""
        for facts in self._waiting.values():
            self._write("frame", facts | {"adapted": False, "why": why})
        self._waiting.clear()
        self._write("end", end)
        if self._file is not None:
            self._file.close()

    def discard(self) -> None:
        """Leaves no file of a run that never began."""
        if self._path is not None and self._file is not None:
            with suppress(OSError):  # of a disk that is full
                self._file.close()
            file_at(self._path).unlink(missing_ok=True)

    def _write(self, kind: str, content: Mapping[str, Any]) -> None:
        if self._path is None or self._file is None or self._file.closed:
            return
        line = json.dumps({"kind": kind, **content}, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with self._lock:
                self._file.write(line)
                self._file.flush()
        except OSError as error:
            raise unwritable(self._path, error, FULL) from error


def _create(path: Path | None) -> TextIO | None:
    if path is None:
        return None
    try:
        place = file_at(path)
        try:
            return place.open("x", encoding="utf-8", errors="backslashreplace")
        except FileExistsError as error:
            raise AllWeatherError(f"{path} exists already. Choose another --record, or remove it first.") from error
    except OSError as error:
        raise unwritable(path, error, FULL) from error
