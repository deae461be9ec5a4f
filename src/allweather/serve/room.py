"""How many bytes the body of a request may have; running uploads of the page keep their place on the disk."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from allweather.serve.limits import Limits

UPLOAD = "/gradio_api/upload"  # where the page's forms with files go, and nothing else of that size
FORM = 1 << 20  # bytes of a request beside its files


@dataclass
class Body:
    """The body of one request.

    Attributes:
        most: bytes that it may have.
        expected: bytes that it will have at most, as far as that was said.
        limit: bytes that it might have, were nothing else on the disk.
        files: bytes that its files may have; None where it has none.
        read: bytes that were read and dealt with; what was uploaded of them lies on the disk.
    """

    most: int
    expected: int
    limit: int
    files: int | None = None
    read: int = 0


class Room:
    """Bounds of all bodies.

    Args:
        folder: where the page's uploads lie.
    """

    def __init__(self, limits: Limits, folder: Path) -> None:
        self._limits, self._folder = limits, folder
        self._coming: list[Body] = []  # uploads that are running
        self._lock = threading.Lock()

    @contextmanager
    def body(self, path: str, length: int | None) -> Iterator[Body]:
        """The bounds of a request's body, which holds its place on the disk as long as the block lasts.

        Args:
            path: as the routes compare it.
            length: bytes, where the request says.
        """
        if path != UPLOAD:
            files = self._limits.picture_bytes if path.startswith("/v1/") else None
            most = (files or 0) + FORM
            yield Body(most, most, most, files)
            return
        with self._lock:
            free = self._limits.disk_bytes - self._held() - sum(max(0, b.expected - b.read) for b in self._coming)
            limit = min(self._limits.upload_bytes + FORM, self._limits.disk_bytes)
            most = max(0, min(limit, free))
            body = Body(most, most if length is None else min(length, most), limit, max(0, most - FORM))
            self._coming.append(body)
        try:
            yield body
        finally:
            with self._lock:
                self._coming.remove(body)

    def sweep(self) -> None:
        """Removes uploads that nobody has read for a while, as one leaves that broke off."""
        before = time.time() - self._limits.idle
        for file in self._files():
            with suppress(OSError):  # whoever reads it removes it
                if file.stat().st_mtime < before:
                    file.unlink()

    def _held(self) -> int:
        """Bytes on the disk."""
        held = 0
        for file in self._files():
            with suppress(OSError):
                held += file.stat().st_size
        return held

    def _files(self) -> list[Path]:
        return [Path(at) / name for at, _, names in os.walk(self._folder) for name in names]  # folders may go meanwhile
