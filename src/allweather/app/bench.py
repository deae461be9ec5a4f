"""`allweather bench`: grids of runs as records."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from allweather.app.console import DONE, INTERRUPTED, SOME_FAILED, narration, plain, progress, warn
from allweather.app.flags import RayAddress, Threads, Workers
from allweather.errors import SettingsError
from allweather.runs.decisions import decisions_of, spell
from allweather.runs.execute import Executed, Finished, execute
from allweather.runs.plan import Plan, PlannedRun, read_plan
from allweather.runs.variables import absent_paths, needed, unset_variables
from allweather.scale.benching import RECORD, Benching, OneRun, gather
from allweather.scale.conduct import Conductor
from allweather.scale.engines import open_pool
from allweather.scale.pool import Event
from allweather.scale.workers import Workers as Spread
from allweather.scale.workers import parse_workers

DATA = {"frames", "order_hash", "data_hash"}  # of a record, what its files are
SHOWN = 5  # frames that a warning names
EXAMPLE = "allweather bench plans/camvid.toml --out runs/"


def bench(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="Models × methods × streams × seeds.")],
    out: Annotated[
        Path,
        typer.Option(help="Where the records go. Runs that are there are made again only if their settings changed."),
    ],
    labels: Annotated[
        bool, typer.Option("--labels", help="Keep the predictions too, beside each record; reports show them.")
    ] = False,
    workers: Workers = None,
    ray: RayAddress = None,
    threads: Threads = 1,
) -> None:
    """Run a plan: one JSON record per run, written whole; start it again, or several times at once, to go on."""
    grid = read_plan(plan)
    ready = _ready(grid, plan)
    _tell_absent([run for run in ready.runs if not (out / run.file).exists()])
    spread = None if workers is None and ray is None else parse_workers(workers, ray, threads)
    try:
        with progress() as bar:
            task = bar.add_task("", total=None, rate="")

            def tick(entry: PlannedRun, done: int, total: int) -> None:
                bar.update(task, description=entry.title, completed=done, total=total)

            def finished(entry: PlannedRun, record: Mapping[str, Any]) -> None:
                place = f"{grid.runs.index(entry) + 1} of {len(grid.runs)}"
                score = f"{record['figures']['mIoU']:.2f} mIoU, {record['seconds']:.0f} s"
                said = ", ".join(filter(None, (score, spell(decisions_of(record)))))
                narration.print(f"{place}: {plain(entry.title)}: {said}")

            if spread is None:
                result = execute(ready, out, tick, finished, keep_labels=labels)
            else:
                bar.update(task, description=f"{spread}", total=len(ready.runs))
                result = _spread(ready, out, labels, spread, finished, lambda: bar.advance(task))
    except KeyboardInterrupt:
        narration.print(f"interrupted: finished runs are in {plain(out)}; the same command does the rest.")
        raise typer.Exit(INTERRUPTED) from None
    for name, changed in result.outdated.items():
        shared = any(".code" in each or each in DATA for each in changed)
        apart = ". Plans whose own files share a name need an --out each, or one replaces the other's record"
        warn(f"{name} was there, and was made again: since then {', '.join(changed)} has changed{apart * shared}")
    for name, reason in result.failed.items():
        warn(f"{name}: {reason}")
    for name, frames in result.lost.items():
        shown = ", ".join(list(frames)[:SHOWN]) + (", …" if len(frames) > SHOWN else "")
        warn(
            f"{name}: its figures are without {len(frames)} frames that could not be read or scored: {shown} "
            f"({next(iter(frames.values())).rstrip('.')}). Mend them, delete the record, and start again."
        )
    narration.print(
        f"{len(result.done)} runs done, {len(result.kept)} were there, {len(result.elsewhere)} run elsewhere, "
        f"{len(result.failed)} failed; records in [bold]{plain(out)}[/]"
    )
    short = result.failed or result.lost or len(ready.runs) < len(grid.runs)
    raise typer.Exit(SOME_FAILED if short else DONE)


def _spread(
    ready: Plan, out: Path, labels: bool, workers: Spread, finished: Finished, advance: Callable[[], None]
) -> Executed:
    """The plan's runs by workers, one each at a time; records and locks are those of a single process.

    Raises:
        AllWeatherError: for what would meet every run alike.
    """
    devices = {run.device for run in ready.runs}
    device = next(iter(devices)) if len(devices) == 1 else "cpu"

    def hear(event: Event) -> None:
        if RECORD in event.message:
            finished(event.job.entry, event.message[RECORD])
            advance()

    with open_pool(Benching.here(out, labels, workers.threads), workers, device, len(ready.runs)) as pool:
        conductor = Conductor(pool, lambda lines: None, lambda job, refused: job, hear)
        conducted = conductor.run(OneRun(run) for run in ready.runs)
    return gather(conducted.results, conducted.given_up)


def _tell_absent(runs: list[PlannedRun]) -> None:
    """Names all files and folders that runs without a record would not find, before the first of them."""
    if absent := absent_paths(runs):
        found = "not there, so that runs that need them will fail (a plan's paths are sought from its folder):"
        warn(found, *(f"  {each}" for each in absent))


def _ready(grid: Plan, path: Path) -> Plan:
    """The runs whose variables are all set; the variables of the others are named, all at once.

    Raises:
        SettingsError: when no run is ready.
    """
    ready = Plan(tuple(run for run in grid.runs if not needed(run)))
    if len(ready.runs) == len(grid.runs):
        return grid
    unset = unset_variables(grid.runs)
    example = " ".join(f"{variable.name}=FOLDER" for variable in unset)
    warn(
        f"{len(grid.runs) - len(ready.runs)} of {len(grid.runs)} runs need folders whose variables are not set. What "
        "each has to hold:",
        *(f"  {variable}" for variable in unset),
    )
    mend = f"Set them: {example} allweather bench {path} …"
    if not ready.runs:
        raise SettingsError(f"no run of the plan has its folders. {mend}")
    narration.print(plain(mend))
    return ready
