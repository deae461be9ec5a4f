"""A method's hyperparameters as text and JSON: what there is, what a value may be, what was chosen."""

import os
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from enum import Enum
from math import isfinite
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from allweather.errors import SettingsError, check_known
from allweather.methods.option import spell
from allweather.values import alternatives, parse_value, spell_type

T = TypeVar("T")


def settings_of(method: Any) -> dict[str, Any]:
    """The method's name and every hyperparameter, ready for JSON."""
    values = {field.name: getattr(method, field.name) for field in fields(method)}
    return {"name": method.name, **{name: _plain(value) for name, value in values.items()}}


def describe_fields(method: type[Any]) -> dict[str, dict[str, Any]]:
    """The hyperparameters of a `method` class: type, default and help by name; `needs`: when a field acts.

    One that must be given has no default.
    """
    hints = get_type_hints(method)
    return {
        field.name: {
            "type": spell_type(hints[field.name]),
            **_default(field),
            "help": field.metadata.get("help", ""),
            **({"needs": need.text} if (need := field.metadata.get("needs")) else {}),
        }
        for field in fields(method)
        if field.name not in method.without
    }


def path_fields(method: type[Any]) -> dict[str, Any]:
    """The hyperparameters of a `method` class that name files or folders, with the endings of what it reads there."""
    return {field.name: path for field in fields(method) if (path := field.metadata.get("path"))}


def paths_in(value: Any) -> list[str]:
    """The files and folders that the value of such a field names."""
    if isinstance(value, tuple | list):
        return [path for part in value for path in paths_in(part)]
    return [str(value)] if value and isinstance(value, str | Path) else []


def each_path(value: Any, change: Callable[[str], Path | str]) -> Any:
    """The same value with each of them changed."""
    if isinstance(value, tuple | list):
        return type(value)(each_path(part, change) for part in value)
    return type(value)(change(str(value))) if value and isinstance(value, str | Path) else value


def from_anywhere(method: T) -> T:
    """The method with its files and folders as they are found from any current folder."""
    named = {name: getattr(method, name) for name in path_fields(type(method))}
    found = {name: each_path(value, os.path.abspath) for name, value in named.items()}
    return method if found == named else replace(method, **found)  # type: ignore[type-var]


def check_types(holder: Any) -> None:
    """Refuses values that are not of the type their field of the dataclass `holder` declares; nothing is converted.

    Raises:
        SettingsError: naming the first such field.
    """
    hints = get_type_hints(type(holder))
    name = getattr(holder, "name", type(holder).__name__)
    for field in fields(holder):
        value, kind = getattr(holder, field.name), hints[field.name]
        if not any(_is(value, option) for option in alternatives(kind)):
            wanted, hint = spell_type(kind, ready=True), _hint(field.name, value, kind)
            raise SettingsError(f"{name}.{field.name}: expected {wanted}, got {value!r}.{hint}")


def parse_settings(method: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the method's fields from text or from ready values.

    Raises:
        SettingsError: for a field the method does not have, or a value that its type does not allow.
    """
    return parse_fields(method, _with_views(method.name, settings), method.name)


def parse_fields(kind: type[Any], values: Mapping[str, Any], called: str) -> dict[str, Any]:
    """Values for fields of the dataclass `kind` from text or from ready values; messages call it `called`.

    Raises:
        SettingsError: for a field that it does not have, or a value that its type does not allow.
    """
    hints, known = get_type_hints(kind), {field.name for field in fields(kind)}
    for name in values:
        check_known(f"field of {called}", name, known)
    return {name: parse_value(f"{called}.{name}", value, hints[name]) for name, value in values.items()}


def _hint(name: str, value: Any, kind: Any) -> str:
    """How to write a value that was given as text, or as a list; nothing where it is neither."""
    if not isinstance(value, str | list):
        return ""
    try:
        return f" Write {name}={parse_value(name, value, kind)!r}."
    except SettingsError:
        return ""


def _with_views(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """`mirror`, as plans and records said it before there were other views, in the words of `views`."""
    settings = dict(settings)
    if "mirror" not in settings:
        return settings
    if "views" in settings:
        raise SettingsError(f"{method}: mirror is an old word for views=plain,mirror. Say views alone.")
    mirror = parse_value(f"{method}.mirror", settings.pop("mirror"), bool)
    return settings | {"views": ("plain", "mirror") if mirror else ("plain",)}


def _default(field: Field[Any]) -> dict[str, Any]:
    """The default as `default`; nothing of a field that must be given."""
    if field.default is field.default_factory is MISSING:
        return {}
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return {"default": _plain(value)}


def _plain(value: Any) -> Any:
    """A value as JSON has it, in every process the same; spelt where JSON has nothing of its kind."""
    if is_dataclass(value) and not callable(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {spell(key): _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list | Set):
        parts = map(_plain, value)
        return sorted(parts, key=str) if isinstance(value, Set) else [*parts]
    known = value is None or isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))
    return value if known and not isinstance(value, Enum) else re.sub(r" at 0x\w+", "", spell(value))


def _is(value: Any, kind: Any) -> bool:
    """Whether `value` is of the type `kind` as it stands."""
    if kind is Any:
        return True
    if kind is NoneType:
        return value is None
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is tuple:
        kinds = alternatives(get_args(kind)[0])
        return isinstance(value, tuple) and all(any(_is(part, one) for one in kinds) for part in value)
    if get_origin(kind) is Callable:
        return callable(value)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, get_origin(kind) or kind)
