"""What a visitor may choose of a method: names of the catalogue and values, never code, paths, or work without end."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from allweather import methods
from allweather.errors import SettingsError, unknown
from allweather.methods import METHODS, Method
from allweather.methods.settings import path_fields
from allweather.methods.views import most_passes_of, parse_views
from allweather.models.segmenter import Segmenter
from allweather.plugins import names_code
from allweather.serve.access import inside
from allweather.serve.limits import Limits

FREE = (  # whole numbers that cost nothing, however large they are
    "adapt_every", "every", "horizon", "source_count", "stop_patience",
)  # fmt: skip
COSTLY: dict[str, int] = {"side": 1024, "rank": 512, "max_rank": 512}  # and all others go to `Limits.iterations`
MOST_VIEWS = 8
MOST_SCALES, LARGEST_SCALE = 8, 2.0
LONGEST = 200  # characters of a text


def choose_method(
    name: str,
    preset: str,
    settings: Mapping[str, str],
    model: Segmenter | None,
    limits: Limits,
    allowed: Path | None = None,
) -> Method:
    """The method as `methods.make` gives it, of this package alone and with bounded work.

    Args:
        settings: texts by field, as a visitor wrote them.
        allowed: the folder of the server that fields may name, by paths relative to it; None allows none.

    Raises:
        SettingsError: for a method that is not in the catalogue, a path, or a number that asks for too much.
        AllWeatherError: as `methods.make`.
    """
    if name not in METHODS:  # nothing of a visitor's is ever imported
        raise unknown("method", name[:LONGEST], METHODS)
    known: type[Any] = METHODS[name]
    there = {field.name for field in fields(known)}  # whatever else is named, `make` refuses unread
    texts = {
        field: _checked(name, field, value, allowed) if field in there else value for field, value in settings.items()
    }
    made = methods.make(name, preset, texts, model=model)
    for field in methods.describe_fields(known):
        _check_cost(name, field, getattr(made, field), limits)
    return made


def _checked(name: str, field: str, value: str, allowed: Path | None) -> str:
    if names_code(value):  # which fields of the command line may
        raise SettingsError(
            f"{name}.{field[:LONGEST]}: expected no FILE.py:NAME or package.module:NAME, which is code; visitors name "
            "none."
        )
    if len(value) > LONGEST:
        raise SettingsError(f"{name}.{field[:LONGEST]}: expected at most {LONGEST} characters, got {len(value)}.")
    if field not in path_fields(METHODS[name]) or value == "none":
        return value
    if allowed is None:
        raise SettingsError(f"{name}.{field} names a folder of this server, which it does not allow (--allow-dir).")
    return str(inside(allowed, value))


def _check_cost(name: str, field: str, value: Any, limits: Limits) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and field not in FREE:
        most = COSTLY.get(field, limits.iterations)
        if value > most:
            raise SettingsError(f"{name}.{field}: this server allows at most {most}, got {value}.")
    if field == "views":
        _check_views(name, value)
    if field == "scales" and (len(value) > MOST_SCALES or max(value, default=0) > LARGEST_SCALE):
        raise SettingsError(
            f"{name}.scales: this server allows at most {MOST_SCALES} scales of at most {LARGEST_SCALE:g}, got {value}."
        )


def _check_views(name: str, value: tuple[Any, ...]) -> None:
    if most_passes_of(parse_views(value)) > MOST_VIEWS:
        raise SettingsError(
            f"{name}.views: this server allows views of at most {MOST_VIEWS} forward passes together, one more for "
            f"each -fit whose view unscaled is not named, got {value}."
        )
