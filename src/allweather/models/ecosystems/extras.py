"""Importing an optional library, or saying which extra installs it."""

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
