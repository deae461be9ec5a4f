"""Ctrl-C comes at any moment, to every process of a terminal: what makes it wait, and processes deaf to it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Inside, a process that starts is born deaf to Ctrl-C, which goes to all processes of a terminal.

    The caller hears one that came meanwhile as soon as it is outside.
    """
    with interruptions_wait(), _blocked():
        yield


@contextmanager
def _blocked() -> Iterator[None]:
    """Signals that a thread blocks are blocked in what it starts; handlers are not handed on."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # or starting a process would start it, which ends with the signal let through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def interruptions_wait() -> Iterator[None]:
    """Inside, what has to be done whole is; a Ctrl-C that came meanwhile is heard as soon as the caller is outside.

    Any thread may take a signal that one of them blocks, and only the main thread answers it: elsewhere nothing waits.
    """
    before = signal.getsignal(signal.SIGINT)  # None where it is not of Python, and could not be put back
    heard: list[Any] = []
    try:
        if before is not None:
            signal.signal(signal.SIGINT, lambda *arguments: heard.append(arguments))
    except ValueError:  # not the main thread
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)
