"""Streams from folders and files: natural order, unique names, and a clear word where there is no image."""

import re
from collections.abc import Sequence
from pathlib import Path

from allweather.data.stream import Frame, Stream
from allweather.errors import InputError
from allweather.rgb import EXTENSIONS, read_rgb


def open_files(inputs: Sequence[Path | str], size: tuple[int, int] | None = None) -> Stream:
    """The images of folders (searched to the bottom) and files, inputs in the order given, each folder's naturally.

    A frame is named after its path within the input folder, without suffix.

    Args:
        size: (width, height) that every frame is resampled to; None keeps each one's own.

    Raises:
        AllWeatherError: for an input that does not exist, no image at all, or two frames of one name.
    """
    files: dict[str, Path] = {}
    for given in map(Path, inputs):
        found = _images(given)
        for name, path in found.items():
            if name in files:
                raise InputError(
                    f"two images would share the name '{name}': {files[name]} and {path}. Give them in separate runs."
                )
            files[name] = path
    if not files:
        looked = ", ".join(str(given) for given in inputs)
        raise InputError(f"no image in {looked}: expected files ending in {', '.join(EXTENSIONS)}.")

    def read(name: str) -> Frame:
        image, stored = read_rgb(files[name], size)
        return Frame(name, image, stored, files[name])

    return Stream(list(files), read)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts digits by value: frame2 before frame10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name) if part]


def _images(given: Path) -> dict[str, Path]:
    if given.is_file():
        return {given.stem: given}
    if not given.is_dir():
        raise InputError(f"no such input: {given}. Expected a folder of images or image files.")
    paths = [path for path in given.rglob("*") if path.is_file() and path.suffix.lower() in EXTENSIONS]
    named = {path: path.relative_to(given).with_suffix("").as_posix() for path in paths}
    if len(set(named.values())) < len(named):  # a.jpg beside a.png
        named = {path: path.relative_to(given).as_posix().replace(".", "_") for path in paths}
    return {name: path for path, name in sorted(named.items(), key=lambda item: natural_key(item[1]))}
