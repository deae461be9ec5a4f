"""Why a run could not be made, in a line: a mistake, code of the user's own, memory, or a fault of this package."""

import logging

import torch

from allweather.errors import AllWeatherError, first_line
from allweather.plugins import own_fault, where
from allweather.writing import FULL

LOG = logging.getLogger(__name__)
_MEMORY = ("out of memory", "allocate memory")  # in what torch says on CPUs, and of devices without a class of errors
_LESS = "A smaller size or batch takes less."


def is_full(error: BaseException) -> bool:
    """Whether a disk takes no more, which would meet every run alike."""
    return isinstance(error, OSError) and error.errno in FULL


def why(name: str, error: BaseException) -> str:
    """The reason in a line. The traceback of what is neither the user's mistake nor code is logged.

    Args:
        name: what the log calls the run.
    """
    if isinstance(error, AllWeatherError):
        return str(error)
    own = own_fault(error)
    if _is_memory(error):
        return f"{own or f'out of memory ({first_line(error)}).'} {_LESS}"
    if own is not None:
        return own
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or error}."
    LOG.error("%s", name, exc_info=error)
    return f"a fault of allweather's own, whose traceback is logged: please report it. {where(error)}."


def _is_memory(error: BaseException) -> bool:
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _MEMORY))
