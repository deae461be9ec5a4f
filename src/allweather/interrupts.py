"""Ctrl-C goes to every process of a terminal; processes that another one ends must not hear it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Inside, a process that starts is born deaf to Ctrl-C, which goes to all processes of a terminal.

    The caller hears one that came meanwhile as soon as it is outside.
    """
    with _heard_afterwards(), _blocked():
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
def _heard_afterwards() -> Iterator[None]:
    """Any thread may take a signal that one of them blocks, and only the main thread answers it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *arguments: heard.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)
