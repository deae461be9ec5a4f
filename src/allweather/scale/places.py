"""Where a stream's session is kept while a run goes on, and how far along the stream it is."""

import re
from collections.abc import Callable
from pathlib import Path

from allweather.errors import CheckpointError
from allweather.session import Session

FOLDER = "sessions"  # of OUT


class Place:
    """The saved sessions of one stream: one on the way, whose name says the frames behind it, and the last one.

    Args:
        folder: OUT.
        stream: the stream's name.
    """

    def __init__(self, folder: Path, stream: str) -> None:
        self._folder, self._stream = folder / FOLDER, stream

    @property
    def final(self) -> Path:
        """The session at the stream's end."""
        return self._folder / f"{self._stream}.safetensors"

    def save(self, session: Session, position: int) -> None:
        """Keeps the session after so many frames, and what was kept of fewer no longer.

        Raises:
            CheckpointError: when it cannot be written.
        """
        session.save(self._at(position))
        self.remove(lambda earlier: earlier < position)

    def finish(self, session: Session) -> None:
        """Keeps the session at the stream's end, and what was kept on the way no longer.

        Raises:
            CheckpointError: when it cannot be written.
        """
        session.save(self.final)
        self.remove()

    def load(self, session: Session) -> int:
        """Goes on from what was kept; how many frames are behind it, 0 where nothing usable is there."""
        for position in sorted(self._positions(), reverse=True):
            try:
                session.load(self._at(position))
            except CheckpointError:
                continue  # of a power failure, or of other weights: the stream begins anew
            return position
        return 0

    def _at(self, position: int) -> Path:
        return self._folder / f".{self._stream}.{position}.safetensors"

    def _positions(self) -> list[int]:
        name = re.compile(re.escape(f".{self._stream}.") + r"(\d+)\.safetensors")
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return [int(match[1]) for path in found if (match := name.fullmatch(path.name))]

    def remove(self, outdated: Callable[[int], bool] = lambda earlier: True) -> None:
        """Removes what was kept on the way."""
        for position in filter(outdated, self._positions()):
            self._at(position).unlink(missing_ok=True)
