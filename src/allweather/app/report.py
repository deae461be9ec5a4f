"""`allweather report`: the records of a grid as one page, or its tables as Markdown, CSV or LaTeX."""

from pathlib import Path
from typing import Annotated

import typer

from allweather.app.console import narration, plain
from allweather.report import Format, write_report

EXAMPLE = "allweather report runs/ --out report.html"


def report(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="The folder that `allweather bench` wrote to.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    format: Annotated[
        Format | None,
        typer.Option(help="html: one page that needs no network; or its tables. Default: what OUT's name ends in."),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=0, help="Show this many best and worst frames of each method (runs made with --labels).")
    ] = 0,
) -> None:
    """Write tables, curves and reliability diagrams from records alone."""
    count = write_report(runs, out, format, frames)
    narration.print(f"{count} records in [bold]{plain(out)}[/]")
