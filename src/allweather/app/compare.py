"""`allweather compare`: what two records differ in."""

from pathlib import Path
from typing import Annotated, Any

import typer

from allweather.app.console import data, print_json, table
from allweather.bench.compare import compare as compare_records
from allweather.bench.record_file import read_record


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command(epilog="Example: allweather compare runs/a.json runs/b.json --json")(compare)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="A record.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Another.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Say what differs between two records: settings, figures, and the paired difference over their images."""
    found = compare_records(read_record(first), read_record(second))
    if json:
        print_json(found)
        return
    settings = [(key, *map(str, values)) for key, values in found["settings"].items()]
    data.print(table("settings that differ", ("setting", first.stem, second.stem), settings, numbers_from=3))
    figures = [(key, *map(_figure, values)) for key, values in found["figures"].items()]
    data.print(table("figures", ("figure", first.stem, second.stem, "difference"), figures))
    if found["paired"]:
        data.print(f"paired over images: {found['paired']}")


def _figure(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
