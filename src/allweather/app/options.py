"""The command line's own little languages: sizes, FIELD=VALUE settings, lists of names, and an own network's needs."""

import re
from typing import Any, Literal, TypeVar

from allweather.data.class_files import find_classes
from allweather.errors import SettingsError, check_known
from allweather.runs.plan import pixels
from allweather.session.guard import Guard, guard_of
from allweather.values import parse_value

Name = TypeVar("Name", bound=str)
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0}


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(width, height) from WIDTHxHEIGHT.

    Raises:
        SettingsError: for anything else, or a side that no network could take.
    """
    size = pixels(text)
    return size and check_sides(size)


def check_sides(size: tuple[int, int]) -> tuple[int, int]:
    """The size (width, height), where a network could take it.

    Raises:
        SettingsError: for a side that none could.
    """
    if not all(16 <= side <= 16384 for side in size):
        width, height = size
        raise SettingsError(f"size: expected WIDTHxHEIGHT with sides of 16 to 16384 pixels, got '{width}x{height}'.")
    return size


def parse_scale(text: str | None) -> float | Literal["auto"]:
    """A factor of 0.25 to 4, or 'auto'; 1 where nothing is given.

    Raises:
        SettingsError: for anything else.
    """
    if text == "auto":
        return "auto"
    try:
        scale = 1.0 if text is None else float(text)
    except ValueError:
        scale = 0.0
    if not 0.25 <= scale <= 4:
        raise SettingsError(f"--scale: expected a factor of 0.25 to 4, or auto, got '{text}'.")
    return scale


def parse_settings(pairs: list[str], option: str = "--set", field_name: str = "FIELD") -> dict[str, str]:
    """Settings by name from FIELD=VALUE texts of a repeatable option.

    Raises:
        SettingsError: for a text without '=' or a field given twice.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        field, separator, value = pair.partition("=")
        if not separator or not field:
            raise SettingsError(f"{option}: expected {field_name}=VALUE, got '{pair}'.")
        if field in settings:
            raise SettingsError(f"{option}: {field} is given twice.")
        settings[field] = value
    return settings


def parse_guard(pairs: list[str]) -> Guard:
    """The collapse guard from FIELD=VALUE texts of `--guard`; its defaults where there are none.

    Raises:
        SettingsError: for what is no field of it, or a value outside its range.
    """
    return guard_of(parse_settings(pairs, "--guard"))


def parse_names(option: str, kind: str, text: str, known: tuple[Name, ...]) -> tuple[Name, ...]:
    """The names of a comma list, in the order in which they are known.

    Args:
        option, kind: the option, and what its names are of, as messages call them.

    Raises:
        SettingsError: for an unknown name, or none.
    """
    asked = [word.strip() for word in text.split(",") if word.strip()]
    if not asked:
        raise SettingsError(f"{option}: expected some of {', '.join(known)}, with commas between them.")
    for word in asked:
        check_known(kind, word, known)
    return tuple(name for name in known if name in asked)


def network_options(
    arguments: list[str] | None, classes: str | None, mean: str | None, std: str | None
) -> dict[str, Any]:
    """What `--model-arg`, `--classes`, `--mean` and `--std` say of a network, as `load_model` takes it.

    Raises:
        SettingsError: for an unknown class set, or what is no NAME=VALUE or no three numbers.
    """
    options = {
        "arguments": parse_settings(arguments or [], "--model-arg", "NAME"),
        "classes": classes and find_classes(classes),
        "mean": mean and parse_value("--mean", mean, tuple[float, float, float]),
        "std": std and parse_value("--std", std, tuple[float, float, float]),
    }
    return {key: value for key, value in options.items() if value}


def parse_seconds(option: str, text: str) -> float:
    """Seconds from a duration with its unit: 40ms, 0.5s, 2min.

    Raises:
        SettingsError: for anything else, or no time at all.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min)", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise SettingsError(f"{option}: expected a time above 0 with its unit, such as 40ms or 0.5s; got '{text}'.")
    return seconds


def parse_every(text: str) -> int | Literal["auto"]:
    """K of `--adapt-every`, or auto.

    Raises:
        SettingsError: for anything else.
    """
    if text == "auto":
        return "auto"
    if not (text.isdecimal() and int(text) > 0):
        raise SettingsError(f"--adapt-every: expected a whole number above 0 or auto, got '{text}'.")
    return int(text)
