"""PyAV, which reads and writes videos, or a word on how to install it."""

from importlib import import_module
from types import ModuleType

from allweather.errors import MissingLibraryError

OLDEST = 18  # the first whose conversion to RGB can be asked to round exactly


def load_pyav() -> ModuleType:
    """The module `av`.

    Raises:
        MissingLibraryError: when it is not installed, or too old.
    """
    try:
        av = import_module("av")
    except ImportError as error:
        raise MissingLibraryError(
            f"videos need PyAV, which is not importable ({error}). Install it with: pip install 'allweather[video]'."
        ) from error
    if int(av.__version__.split(".")[0]) < OLDEST:
        raise MissingLibraryError(
            f"videos need PyAV {OLDEST} or newer, this is {av.__version__}. "
            "Install it with: pip install --upgrade 'allweather[video]'."
        )
    return av
