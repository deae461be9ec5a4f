"""The `allweather` command: one place where errors and interruptions become messages and statuses."""

import os
import sys


def main() -> None:
    """Runs the command line; a user's mistake, or an output that takes no more, ends with status 2 and no traceback.

    An interruption ends with 130, while libraries are still being imported as well as later.
    """
    try:
        _run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.stderr.flush()
        os._exit(130)  # half-imported libraries have nothing to clean up, and much to say if they try


def _run() -> None:
    from allweather.app.console import USER_MISTAKE, complain  # in here, where an interruption is caught
    from allweather.app.verbs import make_app, named_verb
    from allweather.errors import AllWeatherError

    try:
        try:
            make_app(named_verb(sys.argv[1:]))()
        finally:
            sys.stdout.flush()  # here a full disk still has a message; at the interpreter's end it would not
    except AllWeatherError as error:
        complain(str(error))
        sys.exit(USER_MISTAKE)
    except OSError as error:
        complain(f"{error.filename or 'standard output'}: {error.strerror or error}.")
        _silence_stdout()
        sys.exit(USER_MISTAKE)


def _silence_stdout() -> None:
    """Lets the interpreter's last flush succeed where what is buffered has nowhere to go."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - closed by the interpreter
