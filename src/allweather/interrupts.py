"""Ctrl-C comes at any moment, to every process of a terminal, SIGTERM to one: what makes both wait, and who is deaf."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


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
    """Inside, what has to be done whole is; a Ctrl-C, or a SIGTERM that is handled, is heard as soon as it is left.

    Any thread may take a signal that one of them blocks, and only the main thread answers it: elsewhere nothing waits.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if not callable(before[signal.SIGTERM]):
        del before[signal.SIGTERM]
    if before[signal.SIGINT] is None:  # it is not of Python, and could not be put back
        del before[signal.SIGINT]
    heard: list[int] = []
    try:
        for number in before:
            signal.signal(number, lambda number, frame: heard.append(number))
    except ValueError:  # not the main thread
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for each in dict.fromkeys(heard):
            signal.raise_signal(each)


@contextmanager
def terminations_interrupt() -> Iterator[list[int]]:
    """Inside, the first SIGTERM, as `docker stop` and systemd send it, is heard as Ctrl-C is, and later ones are not.

    Gives a list, empty until then. Nothing changes where it is handled already, outside the main thread, and in a rank
    of torchrun, which may wait where Python hears nothing.
    """
    heard: list[int] = []

    def hear(number: int, frame: object) -> None:
        if not heard:
            heard.append(number)
            raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and "TORCHELASTIC_RUN_ID" not in os.environ
    if not usual or threading.current_thread() is not threading.main_thread():
        yield heard
        return
    signal.signal(signal.SIGTERM, hear)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
