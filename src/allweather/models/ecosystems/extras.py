"""Importing an optional library, or saying which extra installs it; and what a library says in one line."""

from importlib import import_module
from types import ModuleType

from allweather.errors import MissingLibraryError


def optional(library: str, extra: str) -> ModuleType:
    """The library, imported.

    Raises:
        AllWeatherError: when it is not installed; the message names the extra.
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise MissingLibraryError(
            f"{library} is not importable ({error}). Install it with: pip install 'allweather[{extra}]'."
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of a library's message, at most 160 characters, without its full stop."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line[:160].rstrip(". ") + ("…" if len(line) > 160 else "")
