"""The `allweather` command: one place where errors and interruptions become messages and statuses."""

import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def main() -> None:
    """Runs the command line; a user's mistake, or an output that takes no more, ends with status 2 and no traceback.

    An interruption ends with 130, while libraries are still being imported as well as later, and SIGTERM with 143.
    """
    try:
        _open_closed()
        _take_any_text()
        sys.argv[1:] = map(_at_home, sys.argv[1:])
        _run()
    except KeyboardInterrupt:
        _end(signal.SIGINT, None)


def _open_closed() -> None:
    """Lets a standard stream that was closed, as by `>&-` or cron, lead nowhere, here and in processes of its own."""
    if sys.__stdin__ is None or sys.stdout is None or sys.stderr is None:
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # or the first file that is written would be stdout
            os.set_inheritable(number, True)
        os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - closed by the interpreter
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def _take_any_text() -> None:
    """Where an encoding lacks a letter, a '?' is better than no output."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def _at_home(word: str) -> str:
    """Fills in each `~` that begins a path; shells leave that of `--out=~/x`."""
    return re.sub(rf"(?<![^=,:])~(?=[/{re.escape(os.sep)}]|$)", lambda _: os.path.expanduser("~"), word)


def _end(number: int, frame: FrameType | None) -> None:
    """Ends the process after an interruption; takes what handlers of signals take."""
    sys.stderr.write("interrupted\n")
    sys.stderr.flush()
    os._exit(130)  # half-imported libraries have nothing to clean up, and much to say if they try


@contextmanager
def _ended_at_once() -> Iterator[None]:
    """Inside, an interruption ends the process: libraries being imported may swallow the exception, and break later."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _run() -> None:
    with _ended_at_once():
        from allweather.allocator import keep_freed_memory
        from allweather.app.console import TERMINATED, USER_MISTAKE, complain, narrate_warnings
        from allweather.app.verbs import make_app, named_verb
        from allweather.errors import AllWeatherError
        from allweather.interrupts import terminations_interrupt
        from allweather.plugins import FAULTS, own_fault
    keep_freed_memory()
    narrate_warnings()
    try:
        with _ended_at_once():
            app = make_app(named_verb(sys.argv[1:]))
        with terminations_interrupt() as terminated:
            try:
                app()
            except SystemExit as ended:
                sys.exit(TERMINATED if terminated else ended.code)
            finally:
                sys.stdout.flush()  # here a full disk still has a message; at the interpreter's end it would not
    except AllWeatherError as error:
        complain(str(error))
        sys.exit(USER_MISTAKE)
    except OSError as error:
        complain(f"{error.filename or 'standard output'}: {error.strerror or error}.")
        _silence_stdout()
        sys.exit(USER_MISTAKE)
    except FAULTS as error:
        said = own_fault(error)
        if said is None:
            raise
        complain(said)
        sys.exit(USER_MISTAKE)


def _silence_stdout() -> None:
    """Lets the interpreter's last flush succeed where what is buffered has nowhere to go."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - closed by the interpreter
