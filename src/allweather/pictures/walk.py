"""The files below a folder as a user means them: links followed, hidden ones left out, unreachable ones named."""

import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """A file below a folder, or what stands where one should be.

    Attributes:
        path: where it is.
        fault: why it cannot be read; None for a file that is there.
    """

    path: Path
    fault: str | None = None


def files_below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Found]:
    """The files below a folder whose suffix (lower case) is among `suffixes`, in the order of their names' bytes.

    Links to files and folders are followed; a folder that lies in itself is entered once. Names that begin with a dot
    are left out with all below them: `._photo.png` of other systems, `.ipynb_checkpoints`, caches. A broken link of
    such a suffix or of none (it may have led to a folder), a folder that cannot be opened, and a device or pipe with an
    image's name are given with their fault.
    """
    yield from _below(folder, suffixes, frozenset({_identity(folder.stat())}))


def files_matching(folder: Path, parts: list[str], above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """The files below a folder that fit a glob pattern's parts, sought as `files_below` does.

    A folder that cannot be opened, such as a disk's `lost+found`, is left out with a warning.
    """
    (part, *rest), above = parts, above | {_identity(folder.stat())}
    deep, many = part == "**", set(part) & set("*?[")
    try:
        names = os.listdir(folder) if many else [part] if (folder / part).exists() else []
    except OSError as error:
        warnings.warn(f"{folder}: {error.strerror}; it is left out.", stacklevel=2)
        return
    if deep and rest:
        yield from files_matching(folder, rest, above)
    if many:
        names = [name for name in names if name[0] != "." or part[0] == "."]
    for path in (folder / name for name in names if deep or name == part or fnmatch(name, part)):
        left = parts if deep else rest
        if path.is_dir():
            if left and not (deep and _identity(path.stat()) in above):
                yield from files_matching(path, left, above)
        elif not left:
            yield path


def look(path: Path) -> Found:
    """What stands at one path.

    Raises:
        FileNotFoundError: when there is nothing at all, not even a broken link.
    """
    try:
        facts = path.stat()
    except OSError as error:
        path.lstat()
        return Found(path, _broken(path, error))
    return Found(path, _no_file(facts))


def _below(folder: Path, suffixes: tuple[str, ...], above: frozenset[tuple[int, int]]) -> Iterator[Found]:
    try:
        with os.scandir(folder) as listing:
            names = sorted((entry.name for entry in listing if not entry.name.startswith(".")), key=os.fsencode)
    except OSError as error:
        yield Found(folder, f"the folder cannot be opened ({error.strerror})")
        return
    for path in (folder / name for name in names):
        wanted = path.suffix.lower() in suffixes
        try:
            facts = path.stat()
        except OSError as error:
            if wanted or not path.suffix:
                yield Found(path, _broken(path, error))
            continue
        if stat.S_ISDIR(facts.st_mode):
            if _identity(facts) not in above:
                yield from _below(path, suffixes, above | {_identity(facts)})
        elif wanted:
            yield Found(path, _no_file(facts))


def _no_file(facts: os.stat_result) -> str | None:
    return None if stat.S_ISREG(facts.st_mode) else "it is a device or a pipe, not a file"


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def _broken(path: Path, error: OSError) -> str:
    if path.is_symlink():
        return f"a broken link to {os.readlink(path)}"
    return error.strerror or str(error)
