"""A file that another library fills: the first write that fails is kept, and nothing is written after it."""

from collections.abc import Iterator
from pathlib import Path

from allweather.errors import AllWeatherError
from allweather.writing import file_at, unwritable

BOX = 8  # bytes of the head of an MP4 file's box
CLUSTER, HEAD = b"\x1f\x43\xb6\x75", 1 << 16  # how a Matroska file's first piece begins, and within how many bytes


class GrowingFile:
    """A file open for writing, with the methods that PyAV asks of one.

    Attributes:
        failure: the first write that failed; None while all is well.

    Raises:
        AllWeatherError: when the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self.failure: Exception | None = None
        try:
            self._place = file_at(path)
            self._file = self._place.open("wb", buffering=0)
        except OSError as error:
            raise unwritable(path, error) from error

    def write(self, content: bytes) -> int:
        """Writes all of it, or raises and writes nothing ever again.

        Raises:
            OSError: where the file takes no more; what failed first, be it that or what `fail` was given, each time.
        """
        if self.failure is not None:
            raise self.failure
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.failure = error
            raise
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fail(self, error: Exception) -> None:
        """Keeps an error that came from elsewhere, unless one is kept already."""
        self.failure = self.failure or error

    def check(self) -> None:
        """Raises an AllWeatherError where a write failed."""
        if self.failure is not None:
            reason = getattr(self.failure, "strerror", None) or self.failure
            kept = "What was written before plays." if self.path.exists() else "Nothing that plays was written yet."
            raise AllWeatherError(
                f"cannot write {self.path}: {reason}. {kept} Make room, or choose another place."
            ) from self.failure

    def close(self, keep: bool = True) -> None:
        """Closes the file; after a failure, cuts off the piece that was not finished. Removes it where nothing is left.

        Args:
            keep: False removes it anyhow.
        """
        try:
            whole = _whole_pieces(self.path) if keep and self.failure is not None else None
            if whole:
                self._file.truncate(whole)
        finally:
            self._file.close()
        if not keep or whole == 0:
            self._place.unlink(missing_ok=True)


def boxes(path: Path) -> Iterator[tuple[bytes, int, bool]]:
    """Each outermost box of an MP4 or MOV file: its kind, where it ends, and whether it is there to its end."""
    place, end = 0, path.stat().st_size
    with path.open("rb") as file:
        while place + BOX <= end:
            file.seek(place)
            size, kind = int.from_bytes(file.read(4)), file.read(4)
            size = int.from_bytes(file.read(8)) if size == 1 else size or end - place
            if size < BOX:
                return
            place += size
            yield kind, place, place <= end


def _whole_pieces(path: Path) -> int:
    """The length of a video file without the piece that was cut off; 0 where none is whole."""
    if path.suffix.lower() == ".mkv":  # its pieces may be cut anywhere, once the first has begun
        with path.open("rb") as file:
            return path.stat().st_size if CLUSTER in file.read(HEAD) else 0
    return max((place for kind, place, whole in boxes(path) if whole and kind == b"mdat"), default=0)
