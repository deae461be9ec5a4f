"""The `allweather` command: one verb a file, one place where errors become messages and statuses."""

import os
import sys

import typer

from allweather.app import adapt, bench, convert, datasets, demo, doctor, listing, report, score, submit
from allweather.app.console import USER_MISTAKE, complain
from allweather.errors import AllWeatherError

app = typer.Typer(
    name="allweather",
    help="Adapt a segmentation network to the weather in front of the camera, at test time, without labels.",
    epilog="Example: allweather demo --out demo-output",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for verb in (demo, adapt, score, bench, report, submit, datasets, convert, listing, doctor):
    verb.register(app)


def main() -> None:
    """Runs the command line; a user's mistake, or an output that takes no more, ends with status 2 and no traceback."""
    try:
        try:
            app()
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
