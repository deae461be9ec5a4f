"""Files that appear whole or not at all: written under a temporary name, then renamed."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from allweather.errors import AllWeatherError

ADVICE = (
    "What was written before is complete; make room or choose another folder, then run again with --resume, where the "
    "verb has it."
)


@contextmanager
def whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Gives the name to write to; what stands there in the end becomes `path`.

    Missing folders are made. Where the block or the renaming raises, nothing of it is left and `path` is as it was.

    Args:
        durable: waits until the disk has it, so that a power failure leaves the old file or the new one; takes some
            milliseconds. Without it the file may come out empty.

    Raises:
        OSError: when the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        _discard(temporary)
        raise


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Writes a file whole or not at all; `durable` as in `whole`.

    Raises:
        AllWeatherError: when it cannot be written.
    """
    try:
        with whole(path, durable=durable) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> AllWeatherError:
    """The error for an output that takes no more."""
    return AllWeatherError(f"cannot write {path}: {error.strerror or error}. {ADVICE}")


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the folder itself is gone or closed to us: there is nothing of ours in it
