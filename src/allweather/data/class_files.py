"""Class sets by name, or one's own out of a TOML file: names in index order, and colors if wanted."""

from pathlib import Path
from typing import Any

from allweather.classes import CLASS_SETS, ClassSet, largest_value
from allweather.data.toml_file import read_toml
from allweather.errors import SettingsError, check_known, unknown

SUFFIX = ".toml"


def find_classes(name: str) -> ClassSet:
    """The class set of a known name, or of a file of one's own.

    A file has `names = ["track", "rail", …]` in the order of the network's logits; `name`, otherwise the file's own;
    `ignore` up to 65535, otherwise 255, or 65535 for more than 255 names; and `colors = [[red, green, blue], …]` in
    0..255, otherwise some that differ.

    Args:
        name: `cityscapes`, `camvid11`, or a file as `yard.toml`.

    Raises:
        SettingsError: for an unknown name, and for a file whose entries would not tell classes apart.
        InputError: for a file that cannot be read.
    """
    if name in CLASS_SETS:
        return CLASS_SETS[name]
    if not is_file(name):
        raise SettingsError(f"{unknown('class set', name, CLASS_SETS)} Classes of your own stand in a file: yard.toml.")
    path = Path(name)
    content = read_toml(path, "class set")
    try:
        return _made(content, path.stem)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def is_file(name: str) -> bool:
    """Whether a class set is named by its file."""
    return name.lower().endswith(SUFFIX)


def _made(content: dict[str, Any], stem: str) -> ClassSet:
    for key in content:
        check_known("entry", key, ("name", "names", "colors", "ignore"))
    names, colors = content.get("names"), content.get("colors", [])
    name = content.get("name", stem)
    if not isinstance(names, list) or not all(isinstance(each, str) and each for each in names):
        raise SettingsError('expected names = ["…", …], in the order of the network\'s logits.')
    if not isinstance(name, str) or name in CLASS_SETS:
        raise SettingsError(f"name: expected a name of its own, got {name!r}.")
    if not isinstance(colors, list):
        raise SettingsError("colors: expected [red, green, blue] for each class, whole numbers in 0..255.")
    classes = ClassSet(**{"name": stem, "ignore": largest_value(len(names)), **content})
    if colors and (doubled := [color for color in classes.colors if classes.colors.count(color) > 1]):
        raise SettingsError(f"colors: {doubled[0]} stands there twice.")
    return classes
