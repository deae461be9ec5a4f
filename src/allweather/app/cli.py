"""The `allweather` command: one verb a file, one place where errors become messages and statuses."""

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
    """Runs the command line; a user's mistake ends with status 2 and no traceback."""
    try:
        app()
    except AllWeatherError as error:
        complain(str(error))
        sys.exit(USER_MISTAKE)
