"""The pictures of a visitor of the page: of uploads, of procedural scenes, of a folder that the server allows."""

import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from allweather.data.folder import named_files, natural_key, told_apart
from allweather.data.scenes import SIZE, render
from allweather.errors import InputError, SettingsError
from allweather.pictures.walk import Found
from allweather.serve.access import inside
from allweather.serve.limits import Limits
from allweather.serve.uploads import CLIPS, Held, UploadError, check_name, read_clip, read_file

LOG = logging.getLogger(__name__)
MOST_SCENES = 30
Read = tuple[list[Held], list[str]]


@dataclass(frozen=True)
class _File:
    """A file whose pictures are wanted.

    Attributes:
        name: that messages call it by.
        label: unique among the files, without suffix.
        where: gives its path, or refuses.
    """

    name: str
    label: str
    where: Callable[[], Path]

    @property
    def is_clip(self) -> bool:
        return self.name.lower().endswith(CLIPS)


def from_uploads(files: Sequence[tuple[str, Path]], folder: Path, limits: Limits, size: tuple[int, int] | None) -> Read:
    """Pictures of uploaded files, and what was left out, in words; the files are removed, whatever came of them.

    Args:
        files: each with the name that the visitor's browser gave it.
        folder: the one that uploads lie in; a file elsewhere is neither read nor removed.

    Raises:
        InputError: for a file that is no upload, or where none could be used.
    """
    inner = sorted(((name, inside(folder, str(path))) for name, path in files), key=lambda each: natural_key(each[0]))
    labels = told_apart([(Path(name).stem.strip(".") or "file", Path(name)) for name, _ in inner])  # no .. in a ZIP
    named = zip(inner, labels, strict=True)
    try:
        return _read([_File(name, label, partial(_checked, name, path)) for (name, path), label in named], limits, size)
    finally:
        for _, path in inner:
            shutil.rmtree(path.parent, ignore_errors=True) if path.parent != folder.resolve() else path.unlink()


def _checked(name: str, path: Path) -> Path:
    check_name(name)
    return path


def from_scenes(weather: str, strength: float, seed: int, count: int, size: tuple[int, int] | None) -> Read:
    """Procedural scenes of consecutive numbers in a weather.

    Raises:
        SettingsError: for an unknown weather, or a number out of its range.
    """
    if not (0 <= strength <= 1.5 and 0 <= seed <= 10**9 and 1 <= count <= MOST_SCENES):
        raise SettingsError(f"a scene: expected strength 0..1.5, number 0..1e9 and 1..{MOST_SCENES} scenes.")
    scenes = [render(number, weather, size or SIZE, strength) for number in range(seed, seed + count)]
    return [_drawn(scene.rgb, f"scene {seed + index}") for index, scene in enumerate(scenes)], []


def from_folder(allowed: Path | None, relative: str, limits: Limits, size: tuple[int, int] | None) -> Read:
    """Pictures of a folder of the server, in natural order, as many as are kept.

    Raises:
        SettingsError: for a folder that is not allowed; InputError: for one without a picture that can be used.
    """
    if allowed is None:
        raise SettingsError("this server does not let visitors name folders of its own (--allow-dir).")
    folder = inside(allowed, relative)
    if not folder.is_dir():
        raise SettingsError(f"{relative[:200]!r}: expected a folder.")
    found = named_files([folder])
    names = {label: each.path.relative_to(folder).as_posix() for label, each in found.items()}
    files = [
        _File(names[label], label, partial(_allowed, allowed, each, names[label])) for label, each in found.items()
    ]
    return _read(files, limits, size)


def _allowed(allowed: Path, found: Found, name: str) -> Path:
    """The file's path, links followed."""
    if found.fault is not None and found.path.exists():
        raise InputError(f"{name} cannot be read ({found.fault}).")
    return inside(allowed, found.path.relative_to(allowed.resolve()).as_posix())


def _read(files: Sequence[_File], limits: Limits, size: tuple[int, int] | None) -> Read:
    """Pictures of files and frames of clips, as many as are kept, and what was left out, in words.

    Raises:
        UploadError: where nothing is left.
    """
    held: list[Held] = []
    said: list[str] = []
    room = limits.held_bytes
    for file in files[: limits.pictures]:
        path: Path | None = None
        try:
            path = file.where()
            for picture in _pictures(file, path, size, limits, said.append, len(files) == 1):
                room -= picture.pixels.nbytes
                if room < 0:
                    break
                held.append(picture)
        except (InputError, SettingsError) as error:
            LOG.warning("refused an upload: %s", error)
            said.append(str(error) if path is None else str(error).replace(str(path), file.name))
        if room < 0:
            what = f"frames of {file.name}" if file.is_clip and len(files) == 1 else "pictures"
            said.append(f"only the first {len(held)} {what} are kept: more take over {limits.held_bytes} bytes.")
            break
    if len(files) > limits.pictures:
        said.append(f"only the first {limits.pictures} of {len(files)} files are kept.")
    if not held:
        raise UploadError("format", " ".join(said[:3]) or "expected a picture, pictures, or a clip.")
    return held, said


def _pictures(
    file: _File, path: Path, size: tuple[int, int] | None, limits: Limits, say: Callable[[str], None], alone: bool
) -> Iterable[Held]:
    """The picture of a file, or the frames of a clip, called by their numbers where there is no other file."""
    if file.is_clip:
        return read_clip(path, file.name, size, limits, say, "" if alone else f"{file.label}/")
    return [read_file(path, file.name, size, limits, say, file.label)]


def _drawn(rgb: np.ndarray, name: str) -> Held:
    pixels = np.round(rgb * 255).astype(np.uint8)
    return Held(name, pixels, (pixels.shape[1], pixels.shape[0]), name)
