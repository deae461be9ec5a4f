"""`allweather compare`: what two records differ in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from allweather.app.console import data, plain, print_json, table
from allweather.report.compare import compare as compare_records
from allweather.report.compare import flatten
from allweather.runs.record_file import read_record

UNPAIRED = (
    "not paired: the records share no image, or are of other labels, classes or scoring (run above says which), or "
    "one is a summary and neither holds their difference; full records hold every image"
)

EXAMPLE = "allweather compare runs/a.json runs/b.json --json"


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="A record.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Another.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Say what differs between two records: settings, figures, and the paired difference over their images."""
    records = read_record(first), read_record(second)
    found = compare_records(*records)
    if json:
        print_json(found)
        return
    data.print(f"A: {plain(first)}\nB: {plain(second)}")
    held = [flatten(record) for record in records]
    settings = [
        (key, *(_setting(value, key in keys) for value, keys in zip(values, held, strict=True)))
        for key, values in found["settings"].items()
    ]
    _show("settings that differ", ("setting", "A", "B"), settings, numbers_from=3)
    figures = [(key, *(_figure(key, value) for value in values)) for key, values in found["figures"].items()]
    title = "figures; mIoU: official, over classes true or predicted; mIoU_truth: over classes in the truth"
    _show(title, ("figure", "A", "B", "difference"), figures)
    data.print(_paired(found["paired"]) if found["paired"] else UNPAIRED)


def _show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1) -> None:
    kind = title.split()[0].rstrip(";")
    data.print(table(title, columns, rows, numbers_from) if rows else f"{kind}: nothing differs")


def _paired(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    spread = "one frame alone, no interval" if low is None else f"{low:+.2f} to {high:+.2f} ({found['level']:.0%})"
    return (
        f"paired over {found['images']} images: {found['mIoU']:+.2f} points of mIoU, {spread}; both means over the "
        f"{len(found['classes'])} classes in their truth: {plain(', '.join(found['classes']))}"
    )


def _setting(value: Any, held: bool) -> str:
    """A setting's value; a dash where the record does not say it."""
    return "–" if not held else "none" if value is None else str(value)


def _figure(name: str, value: Any) -> str:
    """A percentage with two decimals, as tables have it; what is no percentage with five; a dash where there is none.

    Intervals have no difference.
    """
    if value is None:
        return "–"
    digits = 2 if "IoU" in name or "accuracy" in name else 5
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
