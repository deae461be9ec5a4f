"""Values as they are asked for: text as a type's, of a command line or a plan, never evaluated; numbers in a range."""

from collections.abc import Callable
from enum import Enum
from math import inf, isfinite, isnan
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from allweather.errors import InputError, SettingsError

MOST_THREADS = 1024  # of one operation, far beyond any use; torch itself fails from 2^31 on

_DEEPEST = 20  # lists and objects within each other
_NO = object()  # no value of the type
_WORDS = {NoneType: "none", int: "integer", float: "number", bool: "true|false", str: "text", Path: "path"}
_LISTS = (tuple, list)
_FUNCTION = "a function"  # which no text gives
_MANY = {"number": "numbers", "integer": "integers", f"{_FUNCTION}|text": "text or functions"}


def parse_value(where: str, value: Any, kind: Any) -> Any:
    """`value`, text or a ready value such as TOML gives, as the annotated type `kind`.

    Known are int, float, bool, str, Path, None, Literal, Enum, unions of them, and tuples and lists, whose items are
    separated by commas.

    Args:
        where: what the value is for, as messages call it.

    Raises:
        SettingsError: when the type does not allow it.
    """
    parsed = _first(value, kind)
    if parsed is not _NO:
        return parsed
    raise SettingsError(f"{where}: expected {spell_type(kind)}, got {value!r}.")


def plain_value(value: Any, kind: Any) -> Any:
    """A ready value of the annotated type `kind` as that type has it, so that equal values are spelt alike.

    Whole numbers become floats where the type asks for floats, and NumPy's floats Python's; what is no number stays.
    """
    if isinstance(value, _LISTS):
        items = [item for option in alternatives(kind) if get_origin(option) in _LISTS for item in get_args(option)[:1]]
        return [plain_value(item, items[0]) for item in value] if items else list(value)
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        options = alternatives(kind)
        return float(value) if isinstance(value, float) or (float in options and int not in options) else int(value)
    return value


def spell_type(kind: Any, *, ready: bool = False) -> str:
    """The type in words, as messages have it.

    Args:
        ready: of a value of Python, where several are a tuple; else of text, where commas separate them.
    """
    return "|".join(_spell(option, ready) for option in alternatives(kind))


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type, without what `Annotated` says of it."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def check_number(
    where: str, value: Any, *, whole: bool = False, low: float = -inf, high: float = inf, above: float = -inf,
    below: float = inf,
) -> None:  # fmt: skip
    """Refuses what is no finite number of a range; true and false are none.

    Args:
        where: what the value is for, as messages call it.
        whole: whether only whole numbers will do, as integers.
        low, high: the smallest and largest value allowed.
        above, below: values that are not reached.

    Raises:
        SettingsError: naming `where`, the range and the value.
    """
    number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not number or not in_range(value, low, high, above, below):
        kind = "a whole number" if whole else "a number"
        raise SettingsError(f"{where}: expected {kind}{spell_range(low, high, above, below)}, got {value!r}.")


def check_numbers(where: str, values: Any, count: int | None = None, *, above: float = -inf) -> None:
    """Refuses what is no tuple or list of finite numbers above a value, or not `count` of them.

    Raises:
        SettingsError: naming `where`, what was expected and what came.
    """
    wanted = "numbers" if count is None else f"{count} numbers"
    if not isinstance(values, _LISTS) or count not in (None, len(values)):
        raise SettingsError(f"{where}: expected {wanted}, got {values!r}.")
    for value in values:
        check_number(where, value, above=above)


def check_flag(where: str, value: Any) -> None:
    """Refuses anything but True and False.

    Raises:
        SettingsError: naming `where` and the value.
    """
    if not isinstance(value, bool):
        raise SettingsError(f"{where}: expected True or False, got {value!r:.60}.")


def check_depth(content: Any) -> None:
    """Refuses lists and objects of a file within each other more than 20 deep, which code that descends cannot follow.

    Raises:
        InputError: for such content.
    """
    level = [content]
    for _ in range(_DEEPEST):
        containers = [item for item in level if isinstance(item, dict | list)]
        level = [value for item in containers for value in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return
    raise InputError(f"lists and objects lie within each other more than {_DEEPEST} deep.")


def in_range(number: float, low: float, high: float, above: float, below: float = inf) -> bool:
    """Whether the number is finite and within the bounds, `above` and `below` left out."""
    return isfinite(number) and low <= number <= high and (above == -inf or number > above) and number < below


def spell_range(low: float, high: float, above: float, below: float = inf) -> str:
    """The bounds in words that follow `a number`; empty where there are none."""
    bounds = (("above", above), ("at least", low), ("at most", high), ("below", below))
    parts = [f"{word} {bound:g}" for word, bound in bounds if isfinite(bound)]
    return f" {' and '.join(parts)}" if parts else ""


def _spell(kind: Any, ready: bool = False) -> str:
    if get_origin(kind) is Literal:
        return "|".join(str(choice) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(kind.__members__)
    if kind in _LISTS or get_origin(kind) in _LISTS:
        items = get_args(kind)
        count = "" if kind in _LISTS or get_origin(kind) is list or items[-1] is Ellipsis else f"{len(items)} "
        words = sorted({spell_type(item) for item in items if item is not Ellipsis})
        if ready:
            several = [_MANY.get(word, word) for word in words]
            return f"a {(get_origin(kind) or kind).__name__} of {count}{', '.join(several) or 'values'}"
        words = [word.removeprefix(f"{_FUNCTION}|") for word in words]
        if words in (["number"], ["integer"]):
            return f"{count}{words[0]}s separated by commas"
        return f"{count}values separated by commas ({', '.join(words) or 'text'})"
    if get_origin(kind) is Callable:
        return _FUNCTION
    return _WORDS.get(kind) or f"a {getattr(kind, '__name__', kind)}, which text cannot give"


def _try(value: Any, kind: Any) -> Any:
    """`value` as the type `kind`, or `_NO`."""
    if kind is NoneType:
        return None if value is None or value == "none" else _NO
    if get_origin(kind) is Literal:
        return next((choice for choice in get_args(kind) if str(choice) == str(value)), _NO)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return value if isinstance(value, kind) else kind.__members__.get(str(value), _NO)
    if get_origin(kind) is Callable:
        return value if callable(value) else _NO
    if kind in _LISTS or get_origin(kind) in _LISTS:
        return _several(value, kind)
    if kind is bool:
        return {"true": True, "false": False}.get(str(value).lower(), _NO)
    if kind in (str, Path):
        return kind(value) if isinstance(value, str | Path) else _NO
    if kind in (int, float):
        return _number(value, kind)
    made = object if kind is Any else get_origin(kind) or kind  # a ready value of a type that text cannot give
    return value if isinstance(made, type) and isinstance(value, made) and not isinstance(value, str) else _NO


def _number(value: Any, kind: type[int] | type[float]) -> Any:
    if isinstance(value, bool):
        return _NO
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        return _NO
    return number if not isnan(number) and (kind is float or isinstance(value, str) or number == value) else _NO


def _several(value: Any, kind: Any) -> Any:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return _NO
    made, items = get_origin(kind) or kind, get_args(kind) or (str if isinstance(value, str) else Any, ...)
    repeated = made is list or items[-1] is Ellipsis
    kinds = [items[0]] * len(parts) if repeated else list(items)
    if len(kinds) != len(parts):
        return _NO
    found = [
        _first(part.strip() if isinstance(part, str) else part, item) for part, item in zip(parts, kinds, strict=True)
    ]
    return _NO if any(item is _NO for item in found) else made(found)


def _first(value: Any, kind: Any) -> Any:
    """`value` as the first type of a union that allows it, those that any text is of last."""
    tried = (_try(value, option) for option in sorted(alternatives(kind), key=_takes_text))
    return next((parsed for parsed in tried if parsed is not _NO), _NO)


def _takes_text(kind: Any) -> int:
    """0 for none, which is one word; 1 where a text must fit; 2 for paths and several texts; 3 for text."""
    if kind in (NoneType, str):
        return 0 if kind is NoneType else 3
    several = kind in _LISTS or get_origin(kind) in _LISTS
    items = (get_args(kind) or (str,)) if several else (kind,)
    return 2 if any(option in (str, Path) for item in items for option in alternatives(item)) else 1
