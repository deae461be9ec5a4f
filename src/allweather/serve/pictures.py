"""The pictures of a visitor of the page: of uploads, of procedural scenes, of a folder that the server allows."""

import logging
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from allweather.data.folder import natural_key
from allweather.data.scenes import SIZE, render
from allweather.errors import InputError, SettingsError
from allweather.pictures.walk import files_below
from allweather.rgb import EXTENSIONS
from allweather.serve.access import inside
from allweather.serve.limits import Limits
from allweather.serve.uploads import Held, bytes_of, hold, read_picture, read_uploads

LOG = logging.getLogger(__name__)
MOST_SCENES = 30
Found = tuple[list[Held], list[str]]


def from_uploads(paths: list[Path], folder: Path, limits: Limits, size: tuple[int, int] | None) -> Found:
    """Pictures of uploaded files, and what was refused, in words; the files are removed, whatever came of them.

    Args:
        folder: the one that uploads lie in; a file elsewhere is neither read nor removed.

    Raises:
        InputError: for a file that is no upload, or where none could be used.
    """
    inner = [inside(folder, str(path)) for path in paths]
    try:
        named = [(path.name, path) for path in sorted(inner, key=lambda path: natural_key(path.name))]
        return read_uploads(named, size, limits)
    finally:
        for path in inner:
            shutil.rmtree(path.parent, ignore_errors=True) if path.parent != folder.resolve() else path.unlink()


def from_scenes(weather: str, strength: float, seed: int, count: int, size: tuple[int, int] | None) -> Found:
    """Procedural scenes of consecutive numbers in a weather.

    Raises:
        SettingsError: for an unknown weather, or a number out of its range.
    """
    if not (0 <= strength <= 1.5 and 0 <= seed <= 10**9 and 1 <= count <= MOST_SCENES):
        raise SettingsError(f"a scene: expected strength 0..1.5, number 0..1e9 and 1..{MOST_SCENES} scenes.")
    scenes = [render(number, weather, size or SIZE, strength) for number in range(seed, seed + count)]
    return [_drawn(scene.rgb, f"scene {seed + index}") for index, scene in enumerate(scenes)], []


def from_folder(allowed: Path | None, relative: str, limits: Limits, size: tuple[int, int] | None) -> Found:
    """Pictures of a folder of the server, in natural order, as many as are kept.

    Raises:
        SettingsError: for a folder that is not allowed; InputError: for one without a picture that can be used.
    """
    if allowed is None:
        raise SettingsError("this server does not let visitors name folders of its own (--allow-dir).")
    folder = inside(allowed, relative)
    if not folder.is_dir():
        raise SettingsError(f"{relative[:200]!r}: expected a folder.")
    found = sorted(files_below(folder, EXTENSIONS), key=lambda each: natural_key(each.path.name))
    held: list[Held] = []
    refused: list[str] = []
    for each in found[: limits.pictures]:
        try:
            relative_path = each.path.relative_to(allowed.resolve()).as_posix()
            content = inside(allowed, relative_path).read_bytes()  # a link may lead outside
            held.append(hold(read_picture(content, limits, each.path.name), each.path.name, size, limits))
        except (InputError, SettingsError) as error:
            refused.append(str(error))
        if bytes_of(held) > limits.held_bytes:
            break
    if not held:
        raise InputError(f"no picture in {relative[:200]!r} can be used. {' '.join(refused[:3])}")
    return held, refused


def _drawn(rgb: np.ndarray, name: str) -> Held:
    pixels = np.round(rgb * 255).astype(np.uint8)
    return Held(name, np.array(Image.fromarray(pixels)), (pixels.shape[1], pixels.shape[0]))
