"""Methods of the user's own: a subclass of Method in a file, a module or an installed package."""

from collections.abc import Mapping
from inspect import isabstract
from typing import Any

from allweather.errors import SettingsError, unknown
from allweather.methods.method import Method
from allweather.methods.settings import describe_fields
from allweather.methods.views import parse_views
from allweather.plugins import Kind, find_place, guarded, installed, load_installed, load_own, usable, without_name

ADAPTATIONS = Kind("method", "allweather.methods", SettingsError)


def find_method(name: str, known: Mapping[str, type[Method]]) -> type[Method]:
    """The method class `name`: one of the table `known`, or the user's own.

    Args:
        name: of the table, `mymethod.py:MyMethod`, `package.module:MyMethod`, or what an installed package calls it.
            Code of the user's own runs, which is said on stderr.

    Raises:
        SettingsError: for an unknown name, code that fails, or what is no complete method.
    """
    if not isinstance(name, str):
        raise _no_name(name)
    if name in known:
        return known[name]
    packages = installed(ADAPTATIONS)
    if name in packages:
        return checked(name, load_installed(packages[name], ADAPTATIONS), known)
    place = find_place(name)
    if place is not None:
        return checked(place.label, load_own(place, ADAPTATIONS), known)
    raise without_name(name, ADAPTATIONS) or unknown("method", name, [*known, *packages])


def list_own(known: Mapping[str, type[Method]]) -> tuple[dict[str, type[Method]], dict[str, str]]:
    """The methods of installed packages by name, and why others cannot be used."""
    return usable(ADAPTATIONS, known, lambda entry: checked(entry.name, load_installed(entry, ADAPTATIONS), known))


def checked(label: str, made: Any, known: Mapping[str, type[Method]]) -> type[Method]:
    """`made` if it is a complete method class with a name of its own.

    Raises:
        SettingsError: otherwise, with what to add.
    """
    if not (isinstance(made, type) and issubclass(made, Method)):
        raise SettingsError(f"{label}: expected a subclass of allweather.methods.Method, got {made!r:.80}.")
    if isabstract(made):
        lacking = ", ".join(sorted(made.__abstractmethods__))
        raise SettingsError(f"{label} is not complete: {made.__name__} has no {lacking}. Write what is lacking.")
    if not isinstance(vars(made).get("name"), str) or made.name in known:
        raise SettingsError(
            f"{label}: records need a name that no other method has. Write in {made.__name__}: "
            f'name: ClassVar[str] = "my-{getattr(made, "name", "method")}".'
        )
    if "__dataclass_params__" not in vars(made):
        raise SettingsError(f"{label}: write @dataclass(frozen=True, kw_only=True) above the class {made.__name__}.")
    if not isinstance(getattr(made, "source", None), str):
        raise SettingsError(f'{label}: say where it comes from. Write in {made.__name__}: source: ClassVar[str] = "…".')
    guarded(label, ADAPTATIONS, lambda: (describe_fields(made), parse_views(made.views)))
    return made


def _no_name(given: object) -> SettingsError:
    """The error for anything but a name, with the call that takes it."""
    if isinstance(given, Method):
        return SettingsError(f"{type(given).__name__}(…) is a method already: aw.Session(model, method) takes it.")
    if isinstance(given, type) and issubclass(given, Method):
        call = f"aw.Session(model, {given.__name__}(…))"
        return SettingsError(f"methods.make takes a name, got the class {given.__name__}. Make one and use it: {call}.")
    return SettingsError(
        f"methods.make takes a name such as 'mall-domain', got {type(given).__name__} ({given!r:.80})."
    )
