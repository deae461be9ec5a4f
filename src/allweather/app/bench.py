"""`allweather bench` and `allweather compare`: grids of runs as records, and what two records differ in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from allweather.app.console import (
    DONE,
    INTERRUPTED,
    SOME_FAILED,
    data,
    narration,
    plain,
    print_json,
    progress,
    table,
    warn,
)
from allweather.bench.compare import compare as compare_records
from allweather.bench.execute import execute, read_record
from allweather.bench.plan import Run, read_plan


def register(app: typer.Typer) -> None:
    """Adds the verbs to the command line."""
    app.command(epilog="Example: allweather bench plans/camvid.toml --out runs/")(bench)
    app.command(epilog="Example: allweather compare runs/a.json runs/b.json --json")(compare)


def bench(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="Models × methods × streams × seeds.")],
    out: Annotated[
        Path,
        typer.Option(help="Where the records go; what is there is run again only if its settings changed."),
    ],
    labels: Annotated[
        bool, typer.Option("--labels", help="Keep the predictions too, beside each record; reports show them.")
    ] = False,
) -> None:
    """Run a plan: one JSON record per run, written whole; start it again, or several times at once, to go on."""
    grid = read_plan(plan)
    try:
        with progress() as bar:
            task = bar.add_task("", total=None, rate="")

            def tick(entry: Run, done: int, total: int) -> None:
                bar.update(task, description=entry.title, completed=done, total=total)

            def finished(entry: Run, record: Mapping[str, Any]) -> None:
                place = f"{grid.runs.index(entry) + 1} of {len(grid.runs)}"
                score = f"{record['figures']['mIoU']:.2f} mIoU, {record['seconds']:.0f} s"
                narration.print(f"{place}: {plain(entry.title)}: {score}")

            result = execute(grid, out, tick, finished, keep_labels=labels)
    except KeyboardInterrupt:
        narration.print(f"interrupted: finished runs are in {plain(out)}; the same command does the rest.")
        raise typer.Exit(INTERRUPTED) from None
    for name, changed in result.outdated.items():
        warn(f"{name} was there, and was made again: since then {', '.join(changed)} has changed")
    for name, reason in result.failed.items():
        warn(f"{name}: {reason}")
    narration.print(
        f"{len(result.done)} runs done, {len(result.kept)} were there, {len(result.elsewhere)} run elsewhere, "
        f"{len(result.failed)} failed; records in [bold]{plain(out)}[/]"
    )
    raise typer.Exit(SOME_FAILED if result.failed else DONE)


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
    title = "figures; mIoU: official, over classes true or predicted; mIoU_truth: over classes in the truth"
    data.print(table(title, ("figure", first.stem, second.stem, "difference"), figures))
    if found["paired"]:
        data.print(_paired(found["paired"]))


def _paired(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return (
        f"paired over {found['images']} images: {found['mIoU']:+.2f} points of mIoU, {low:+.2f} to {high:+.2f} "
        f"({found['level']:.0%}); both means over the {len(found['classes'])} classes in their truth: "
        f"{', '.join(found['classes'])}"
    )


def _figure(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
