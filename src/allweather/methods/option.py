"""Hyperparameters: declared once with default, help and range, and refused where they could not act."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from functools import partial
from math import inf
from typing import Any

from allweather.errors import SettingsError
from allweather.values import in_range, spell_range


@dataclass(frozen=True)
class Need:
    """A condition on a method's other fields under which a field acts at all.

    Attributes:
        text: the condition as messages say it.
        met: whether the method's fields meet it.
    """

    text: str
    met: Callable[[Any], bool]


def where(**values: Any) -> Need:
    """The need that each named field has the given value, or one of several given as a tuple."""
    allowed = {name: value if isinstance(value, tuple) else (value,) for name, value in values.items()}
    text = " and ".join(f"{name}={'|'.join(spell(v) for v in options)}" for name, options in allowed.items())
    return Need(text, lambda method: all(getattr(method, name) in options for name, options in allowed.items()))


SEVERAL_UPDATES = Need(
    "episodic=false or iterations above 1 (a fresh optimizer's first step does not depend on it)",
    lambda method: not method.episodic or method.iterations > 1,
)


def option(
    default: Any,
    help: str = "",
    *,
    low: float = -inf,
    high: float = inf,
    above: float = -inf,
    needs: Need | None = None,
    absent: Any = None,
    before: str = "",
    path: bool | tuple[str, ...] = False,
) -> Any:
    """A hyperparameter: a dataclass field with its default, one line of help, and the values that make sense.

    Args:
        help: empty where the documentation of the whole says it.
        low, high: the smallest and largest value allowed; of each number where the value is a sequence.
        above: a value that must be exceeded.
        needs: the condition under which the field acts; set without it, the field is refused by name.
        absent: the value that acts as everything did before there was this field, where the default does not.
        before: what tables say of a record from before there was this field, where the default acts otherwise.
        path: whether it names a file or folder, which plans seek from their folder and visitors of a server may not; or
            the endings of what it reads below a folder.
    """
    told = {"help": help, "low": low, "high": high, "above": above, "needs": needs, "absent": absent, "before": before}
    told["path"] = path if isinstance(path, tuple) else ("",) * path
    return field(default=default, metadata=told)


def check_ranges(holder: Any, name: str) -> None:
    """Refuses numbers outside the ranges that the fields of the dataclass `holder` declare, and tuples of nothing.

    A tuple may be empty where the field's default is.

    Raises:
        SettingsError: naming the first field whose value does not fit.
    """
    for entry in fields(holder):
        value, bounds = getattr(holder, entry.name), _bounds(entry.metadata)
        if isinstance(value, tuple) and not value and entry.default != ():  # a NumPy number is no truth beside ()
            raise SettingsError(f"{name}.{entry.name}: expected at least one value, got none.")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not isinstance(number, bool) and not in_range(number, *bounds):
                raise SettingsError(
                    f"{name}.{entry.name}: expected a finite number{spell_range(*bounds)}, got {spell(value)}."
                )


def check_needs(method: Any) -> None:
    """Refuses fields that were set although nothing that they change is in use.

    A field counts as set where its value is neither its default nor that of one of the method's presets.

    Raises:
        SettingsError: naming the first such field, and what it needs.
    """
    for entry in fields(method):
        value, need = getattr(method, entry.name), entry.metadata.get("needs")
        if not is_set(method, entry.name, value):
            continue
        if reason := method.without.get(entry.name):
            raise SettingsError(f"{method.name}.{entry.name}={spell(value)} would change nothing: {reason}.")
        if need is not None and not need.met(method):
            raise SettingsError(
                f"{method.name}.{entry.name}={spell(value)} would change nothing: it needs {need.text}."
            )


def is_set(method: Any, name: str, value: Any) -> bool:
    """Whether `value` is neither the field's default nor what a preset, or a network without BatchNorm, gives it."""
    default = next((entry.default for entry in fields(method) if entry.name == name), MISSING)
    given = (*method.presets.values(), method.without_batchnorm)
    usual = [default, *(each[name] for each in given if name in each)]
    return not any(value is known or (type(value) is type(known) and value == known) for known in usual)


def spell(value: Any) -> str:
    """A value as the command line writes it: functions by module and name, callables by their class, Enums by name."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, partial):
        return spell(value.func)
    if callable(value):
        value = value if hasattr(value, "__qualname__") else type(value)
        return f"{value.__module__}:{value.__qualname__}"
    return ",".join(map(spell, value)) if isinstance(value, tuple) else str(value)


def _bounds(limits: Any) -> tuple[float, float, float]:
    """`low`, `high` and `above` of a field's metadata."""
    return limits.get("low", -inf), limits.get("high", inf), limits.get("above", -inf)
