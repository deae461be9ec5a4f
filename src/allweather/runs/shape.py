"""The shape that JSON must have: kinds of values, names and lists, and the first place where something else stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from allweather.errors import InputError

NUMBER = (int, float)
OR_NONE = (type(None),)
SCALAR = (str, int, float, bool, *OR_NONE)
LARGEST = 2.0**63  # whole numbers beyond it fit no array
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object",
          list: "a list", type(None): "null"}  # fmt: skip


@dataclass(frozen=True)
class Maybe:
    """A name that may be missing."""

    shape: Any


class Count:
    """A whole number from 0; the class itself is the shape."""


@dataclass(frozen=True)
class Each:
    """An object with any names, whose values share a shape."""

    shape: Any


def check(content: Any, shape: Any, where: str = "") -> None:
    """Refuses content of another shape.

    Args:
        shape: a type or tuple of types, or `Count`; `[shape]` for lists; names → shapes for objects, which may hold
            others too; or `Each` for objects of any names.
        where: dotted path to the content.

    Raises:
        InputError: with the first path at which something else stands, what it is and what was expected.
    """
    if isinstance(shape, list):
        for index, item in enumerate(_typed(content, (list,), where)):
            check(item, shape[0], _join(where, index))
    elif isinstance(shape, Each):
        for name, value in _typed(content, (dict,), where).items():
            check(value, shape.shape, _join(where, name))
    elif shape is Count:
        if _typed(content, (int,), where) < 0:
            raise InputError(f"{where}: expected a whole number from 0, got {content}.")
    elif isinstance(shape, Mapping):
        _check_names(_typed(content, (dict,), where), shape, where)
    else:
        _typed(content, shape if isinstance(shape, tuple) else (shape,), where)


def _check_names(content: dict[str, Any], shape: Mapping[str, Any], where: str) -> None:
    for name, inner in shape.items():
        optional = isinstance(inner, Maybe)
        if name in content:
            check(content[name], inner.shape if isinstance(inner, Maybe) else inner, _join(where, name))
        elif not optional:
            raise InputError(f"{_join(where, name)} is missing.")


def _typed(content: Any, kinds: tuple[type, ...], where: str) -> Any:
    number = type(content) in NUMBER
    if type(content) not in kinds or (number and not (isfinite(content) and abs(content) < LARGEST)):
        wanted = " or ".join(dict.fromkeys(_WORDS[kind] for kind in kinds))
        raise InputError(f"{where or 'the whole'}: expected {wanted}, got {_shown(content)}.")
    return content


def _shown(content: Any) -> str:
    """A value in a few characters; of a list or an object only that it is one."""
    return _WORDS[type(content)] if isinstance(content, dict | list) else f"{content!r:.40}"


def _join(where: str, name: object) -> str:
    return f"{where}.{name}" if where else str(name)
