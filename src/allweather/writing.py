"""Files that appear whole or not at all: written under a temporary name, then renamed."""

import errno
import os
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import Self

from allweather.errors import AllWeatherError, InputError, SettingsError
from allweather.interrupts import interruptions_wait

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ADVICE = (
    "What was written before is complete: make room and give the same command again (`adapt` with --resume), or choose "
    "another folder."
)


@contextmanager
def whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Gives the name to write to; what stands there in the end becomes `path`.

    Missing folders are made; of a link, the file that it leads to is written. Where the block or the renaming raises,
    nothing of it is left and `path` is as it was.

    Args:
        durable: waits until the disk has it, so that a power failure leaves the old file or the new one; takes some
            milliseconds. Without it the file may come out empty.

    Raises:
        OSError: when the folder or the file cannot be written, and as `file_at`.
    """
    path = file_at(path)
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


def file_at(path: Path) -> Path:
    """The file that a path means: where links lead, be it there or not. Missing folders are made.

    Raises:
        OSError: for a folder, for what is there and no file, as a device, for links that lead round, and for a file
            whose folder cannot be made.
    """
    if not path.name or path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a pipe or a device, and only files are written", str(path))
    place = real(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def real(path: Path) -> Path:
    """Where a path leads through links on the way and at its end, be it there or not.

    Raises:
        OSError: for links that lead round.
    """
    place = Path(os.path.realpath(path))
    if any(each.is_symlink() for each in (place, *place.parents)):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return place


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives the name of a folder to fill; in the end it takes the place of `path`, and of all that stood there.

    Of a link, the folder that it leads to is written.

    Where the block raises, nothing of it is left and `path` is as it was; so too where it makes no folder. One process
    at a time may be at it: what another left half done is removed.

    Raises:
        AllWeatherError: when the folder cannot take the place.
    """
    path = Path(os.path.realpath(path))
    temporary, old = (path.with_name(f".{path.name}.{word}") for word in ("partial", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    if old.exists() and not path.exists():
        old.replace(path)
    shutil.rmtree(old, ignore_errors=True)
    try:
        yield temporary
        if temporary.is_dir():
            _take_place(temporary, path, old)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _take_place(made: Path, path: Path, old: Path) -> None:
    """Removes what stood there only once the new folder stands in its place."""
    try:
        with interruptions_wait():
            if path.is_dir():
                path.replace(old)
            try:
                made.replace(path)
            except OSError:
                if old.is_dir():
                    old.replace(path)
                raise
    except OSError as error:
        raise unwritable(path, error) from error
    shutil.rmtree(old, ignore_errors=True)


def stays_below(name: str) -> bool:
    """Whether a path, taken from a folder, stays below it."""
    path = PurePath(name)
    return not path.anchor and ".." not in path.parts  # on Windows a path may have a root or a drive alone


def place_below(folder: Path, name: str) -> Path:
    """Where a result of that name is written.

    Raises:
        InputError: for a name that leaves the folder, where a file of the user's own may stand.
    """
    if not stays_below(name):
        raise InputError(f"expected a frame's name that stays below {folder}, got '{name}'.")
    return folder / name


def check_place(path: Path) -> None:
    """Refuses a place where no file could be written, before any work; missing folders are made.

    Raises:
        AllWeatherError: as `file_at`, and for a file in a folder that cannot be made or written.
    """
    try:
        folder = file_at(path).parent
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "the folder is not yours to write in")
        with NamedTemporaryFile(dir=folder, prefix=".place-"):
            pass  # some folders, as below /proc, take none and do not say so
    except OSError as error:
        raise unwritable(path, error) from error


def check_folder(path: Path) -> None:
    """Refuses a folder that could not be made or written, before any work; none is made.

    Raises:
        AllWeatherError: for a file in its place or on the way to it, and for a folder that takes nothing.
    """
    try:
        there = _nearest(path)
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"'{there.name}' is a file")
        if not os.access(there, os.W_OK):
            raise PermissionError(errno.EACCES, f"the folder {there.name} is not yours to write in")
    except OSError as error:
        raise unwritable(path, error) from error


def _nearest(path: Path) -> Path:
    """What is there of where a path leads: itself, or the nearest folder above it."""
    there = real(path)
    for place in (there, *there.parents):
        if place.exists():
            return place
    raise FileNotFoundError(errno.ENOENT, "no such drive")


def check_case(folder: Path, names: Iterable[str]) -> None:
    """Refuses names that differ by case alone for a place that does not tell case apart: one would replace the other.

    Args:
        folder: where the results go; it need not exist.

    Raises:
        InputError: naming the first two.
    """
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(name.casefold(), name)
        if other != name and not _tells_case(folder):
            raise InputError(
                f"{other} and {name} would be one file in {folder}, where letters' case makes no difference. Rename "
                "one, or give --out a place where it does."
            )


def _tells_case(folder: Path) -> bool:
    with NamedTemporaryFile(dir=_nearest(folder), prefix=".case-") as file:
        probe = Path(file.name)
        return not probe.with_name(probe.name.upper()).exists()


def check_apart(out: Path, read: Iterable[Path | None]) -> None:
    """Refuses an output in the place of a file that it is made from, by whatever names the two go.

    Args:
        read: the files; None for one that was not given.

    Raises:
        SettingsError: naming the file.
    """
    for path in read:
        if path is not None and _is_one(out, path):
            raise SettingsError(f"{out} would replace {path}, which it is made from. Name another file to write.")


def _is_one(first: Path, second: Path) -> bool:
    there = first.exists() and second.exists()
    return first.resolve() == second.resolve() or (there and first.samefile(second))


class Closing(ABC):
    """An output that a `with` block closes; that closing fails is not said over the block's own error."""

    @abstractmethod
    def close(self) -> None:
        """Writes what is left.

        Raises:
            AllWeatherError: when it cannot be written.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except AllWeatherError:
            if error is None:
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


def unwritable(path: Path, error: OSError, full: str = ADVICE) -> AllWeatherError:
    """The error for an output that takes no more, or a place that takes none; `full` is what to do on a full disk."""
    advice = full if error.errno in FULL else "Name another place, in a folder of yours."
    return AllWeatherError(f"cannot write {path}: {error.strerror or error}. {advice}")


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the folder itself is gone or closed to us: there is nothing of ours in it
