"""Memory that was freed stays with the process, or goes back to the system, where the C library is glibc."""

import ctypes
import os
from collections.abc import Callable
from typing import cast

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_KEPT = {_TRIM: (2**31 - 1,), _MMAP: (2**30, 2**25)}  # bytes; glibc before 2.35 takes no more than the last
_VARIABLES = {_TRIM: "MALLOC_TRIM_THRESHOLD_", _MMAP: "MALLOC_MMAP_THRESHOLD_"}


def keep_freed_memory() -> bool:
    """Lets this process, and those it starts from now on, use freed memory again instead of giving it back.

    By default glibc returns each large block to the system at once and takes it anew for the next frame, page by page:
    on the CPU that is 5 to 10 % of the time of a frame that is learnt from. The process then holds its peak of memory
    to its end. The command line calls this; a program of your own may, before its first frame.

    Returns:
        Whether anything changed: False without glibc, and where the environment says already what malloc is to do
        (MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_, or GLIBC_TUNABLES).
    """
    if any(name in os.environ for name in (*_VARIABLES.values(), "GLIBC_TUNABLES")):
        return False
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return False
    for option, sizes in _KEPT.items():
        for size in sizes:
            if mallopt(option, size):
                os.environ[_VARIABLES[option]] = str(size)
                break
    return any(name in os.environ for name in _VARIABLES.values())


def give_back_freed_memory() -> bool:
    """Gives memory that was freed back to the system, all threads'; what comes next takes it anew, page by page.

    For a long-lived process that has let go of much: glibc keeps what each thread has freed, one heap for each.

    Returns:
        Whether anything was given back: False without glibc.
    """
    trim = _of_glibc("malloc_trim")
    return trim is not None and bool(trim(ctypes.c_size_t(0)))


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library; None where that is not glibc."""
    try:
        library = ctypes.CDLL(None)
        found, _ = getattr(library, name), library.gnu_get_libc_version
    except (TypeError, OSError, AttributeError):
        return None
    return cast("Callable[..., int]", found)
