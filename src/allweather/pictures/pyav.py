"""PyAV, which reads and writes videos, or a word on how to install it."""

import gc
import os
import sys
from types import ModuleType

from allweather.errors import MissingLibraryError, optional

OLDEST = 18  # the first whose conversion to RGB can be asked to round exactly


def load_pyav() -> ModuleType:
    """The module `av`.

    Raises:
        MissingLibraryError: when it is not installed, or too old.
    """
    av = optional("av", "video", "PyAV")
    if int(av.__version__.split(".")[0]) < OLDEST:
        raise MissingLibraryError(
            f"videos need PyAV {OLDEST} or newer, this is {av.__version__}. "
            "Install it with: pip install --upgrade 'allweather[video]'."
        )
    return av


def _keep_inherited() -> None:
    """In a forked process: to collect what PyAV left would wait for ever, for threads that only the parent has."""
    if "av" in sys.modules:
        gc.freeze()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)
