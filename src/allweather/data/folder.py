"""Streams from folders and files: natural order, unique names, and a clear word where there is no image."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from allweather.data.stream import Frame, Stream
from allweather.data.video import suffixes
from allweather.errors import ImageError, InputError
from allweather.pictures.walk import Found, files_below, look
from allweather.rgb import EXTENSIONS, read_upright
from allweather.sizes import check_asked

OTHERS = (*suffixes, ".jfif", ".jpe", ".heic", ".heif", ".avif", ".jp2", ".dng", ".raw")  # of pictures, and not read


def open_files(inputs: Sequence[Path | str], size: tuple[int, int] | None = None) -> Stream:
    """The images of folders (searched to the bottom) and files, inputs in the order given, each folder's naturally.

    A frame is named after its path within the input folder, without suffix; images of one folder that differ in
    nothing but their suffix, and only those, are told apart by it: `a.png` and `a.jpg` are `a_png` and `a_jpg`. Linked
    folders and files are followed, hidden ones left out. A broken link, or a folder that cannot be opened, is a frame
    that raises where it stands.

    Args:
        size: (width, height) that every frame is resampled to; None keeps each one's own.

    Raises:
        InputError: for an input that does not exist, no image at all, or two frames of one name.
        SettingsError: for a size that is none.
    """
    size, files = check_asked(size), named_files(inputs)

    def read(name: str) -> Frame:
        found = files[name]
        if found.fault is not None:
            raise ImageError(f"{found.path}: not a readable image ({found.fault}).")
        return read_frame(name, found.path, size)

    return Stream(list(files), read)


def named_files(inputs: Sequence[Path | str]) -> dict[str, Found]:
    """The files that `open_files` reads, by frame name, in order.

    Raises:
        InputError: as `open_files`.
    """
    if not inputs:
        raise InputError("no input: expected at least one folder of images or image file, got an empty list.")
    files = _named([entry for given in map(Path, inputs) for entry in _images(given)])
    if not files:
        looked, others = ", ".join(str(given) for given in inputs), _others(inputs)
        raise InputError(
            f"no image in {looked}: expected files ending in {', '.join(EXTENSIONS)} (hidden files are left out)"
            + (f", found {others}. Name a video itself, or several with --streams-by folder." if others else ".")
        )
    return files


def tell_others(inputs: Sequence[Path | str]) -> None:
    """Warns of pictures and videos that `open_files` leaves out of folders because of what their names end in."""
    if others := _others(inputs):
        warnings.warn(
            f"left out of the folders: {others}. Of a folder, files ending in {', '.join(EXTENSIONS)} are frames; "
            "rename pictures, and name a video itself.",
            stacklevel=2,
        )


def _others(inputs: Sequence[Path | str]) -> str:
    """How many files of which other endings lie below the folders."""
    found = [entry.path for folder in map(Path, inputs) if folder.is_dir() for entry in files_below(folder, OTHERS)]
    counts = Counter(path.suffix.lower() for path in found if path.suffix)
    return ", ".join(f"{count} × {suffix}" for suffix, count in sorted(counts.items()))


def read_frame(name: str, path: Path, size: tuple[int, int] | None) -> Frame:
    """The image of a file as a frame, resampled to (width, height) where that is given; decoded once.

    Raises:
        ImageError: when it cannot be read.
    """
    return Frame.of(name, read_upright(path), size, path)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts digits by value: frame2 before frame10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name) if part]


def suffixed(path: Path) -> str:
    """The suffix as it tells twins apart: `_png`."""
    return path.suffix.replace(".", "_")


def told_apart(entries: Sequence[tuple[str, Path]]) -> list[str]:
    """A unique name for each (name, file): its own where no other has it, else with the file's suffix."""
    count = Counter(name for name, _ in entries)
    taken = {name for name in count if count[name] == 1}
    return [name if count[name] == 1 else _untaken(name, suffixed(path), taken) for name, path in entries]


def _images(given: Path) -> list[tuple[str, Found]]:
    """The images of one input with their names, before twins are told apart."""
    if given.is_dir():
        found = [(_relative(entry.path, given), entry) for entry in files_below(given, EXTENSIONS)]
        return sorted(found, key=lambda item: (natural_key(item[0]), os.fsencode(item[1].path)))
    try:
        return [(given.stem, look(given))]
    except OSError as error:
        raise InputError(f"no such input: {given}. Expected a folder of images or image files.") from error


def _relative(path: Path, folder: Path) -> str:
    inside = path.relative_to(folder)
    return (inside.with_suffix("") if path.suffix.lower() in EXTENSIONS else inside).as_posix()


def _named(entries: Sequence[tuple[str, Found]]) -> dict[str, Found]:
    """The entries by unique names.

    Raises:
        InputError: for two entries of one name that are no twins.
    """
    groups: dict[str, list[Path]] = {}
    for name, entry in entries:
        groups.setdefault(name, []).append(entry.path)
    for name, paths in groups.items():
        _check_twins(name, paths)
    names = told_apart([(name, entry.path) for name, entry in entries])
    return dict(zip(names, (entry for _, entry in entries), strict=True))


def _check_twins(name: str, paths: Sequence[Path]) -> None:
    """Raises unless the paths of one name lie in one folder and differ in their suffix."""
    first = paths[0]
    for index, path in enumerate(paths[1:], 1):
        if path.parent != first.parent or path.suffix in (other.suffix for other in paths[:index]):
            raise InputError(
                f"two images would share the name '{name}': {first} and {path}. Give them in separate runs, or each "
                "folder as a stream of its own: --streams-by folder."
            )


def _untaken(name: str, suffix: str, taken: set[str]) -> str:
    """The name with its suffix, once or as often as it takes to be no other frame's; it is taken then."""
    name += suffix
    while name in taken:
        name += suffix
    taken.add(name)
    return name
