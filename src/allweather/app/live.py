"""`allweather live`: predicts a camera, a stream or a file as it comes, and adapts beside it."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from allweather import methods
from allweather.app.console import DONE, INTERRUPTED, SOME_FAILED, narration, plain, progress, rate
from allweather.app.flags import (
    Channels,
    Classes,
    Device,
    GuardLimits,
    MethodName,
    ModelArguments,
    ModelName,
    Preset,
    RandomWeights,
    Seed,
    Settings,
    Sha256,
    Weights,
)  # fmt: skip
from allweather.app.opening import frame_size, open_session
from allweather.app.options import network_options, parse_every, parse_guard, parse_seconds, parse_settings
from allweather.errors import AllWeatherError, SettingsError
from allweather.interrupts import interruptions_wait
from allweather.live import Live, LiveFrame
from allweather.live.live import Where
from allweather.live.naming import open_source
from allweather.live.totals import Totals
from allweather.pictures.film import FORMATS, Film
from allweather.pictures.panels import fitted
from allweather.pictures.pyav import load_pyav
from allweather.session import Precision
from allweather.writing import check_place

USUAL_RATE = 25.0  # of a film of a source that says nothing; its frames have their own times
EXAMPLE = "allweather live drive.mp4 --model demo:streetnet --budget 100ms --out adapted.mp4"


def live(
    source: Annotated[
        str,
        typer.Argument(help="A video file, a folder of images, rtsp://… or http://…, or camera:0.", metavar="SOURCE"),
    ],
    model: ModelName,
    weights: Weights = None,
    sha256: Sha256 = None,
    random_weights: RandomWeights = False,
    model_arg: ModelArguments = None,
    classes: Classes = None,
    mean: Channels = None,
    std: Channels = None,
    method: MethodName = "mall-domain",
    preset: Preset = "recommended",
    setting: Settings = None,
    guard: GuardLimits = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Resample every frame to this before the network; 'native' keeps each. Default: native, or what the "
            "network's authors take (`list models --json`).",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Drop frames that have waited longer than this, such as 40ms or 0.5s."),
    ] = None,
    adapt_every: Annotated[
        str, typer.Option(metavar="K|auto", help="Learn from one frame in K; auto: as many as the budget leaves.")
    ] = "auto",
    wait: Annotated[bool, typer.Option("--wait", help="Predictions wait for the learning, as in `adapt`.")] = False,
    every_frame: Annotated[
        bool,
        typer.Option(
            "--every-frame", help="A file or folder waits for the predictions; nothing is dropped. Without --budget."
        ),
    ] = False,
    play_rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="FPS",
            help="Frames per second of a file or folder. Default: the file's own; of a folder, 10.",
        ),
    ] = None,
    stall: Annotated[
        str, typer.Option(metavar="TIME", help="A stream is lost after this time without a picture.")
    ] = "30s",
    reconnect: Annotated[
        int, typer.Option(min=0, metavar="N", help="Maximum attempts in a row to connect to a lost stream again.")
    ] = 8,
    learner: Annotated[Where, typer.Option(help="Where to learn; auto: a process of its own on a CPU.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.mp4", help="Write the predictions over the frames as a video.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Write one JSON line per frame: times, state, decision.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Annotated[Precision, typer.Option(help="bf16 runs the network under autocast.")] = "float32",
) -> None:
    """Predict a camera, a stream or a file as it comes, and adapt beside it: predictions never wait for learning.

    The newest frame is predicted with the newest parameters; frames there was no time for are dropped and counted.
    Predictions are of the frame at its size, grey where lamps light the scene and the network is surer of it so (--set
    views=plain leaves that out); --set views=plain,mirror or --preset best average several views of it.
    Ctrl-C ends a camera or stream. The exit status is 1 where pictures could not be read or a stream was lost.
    """
    _check_files(out, record)
    chosen = frame_size(size, model)
    opened = open_source(source, chosen, play_rate, parse_seconds("--stall", stall))
    limit = None if budget is None else parse_seconds("--budget", budget)
    settings = parse_settings(setting or [])
    session = open_session(
        model, weights, method, preset, _one_view(method, preset, settings) | settings, device,
        network_options(model_arg, classes, mean, std), sha256=sha256, random_weights=random_weights, seed=seed,
        precision=precision, guard=parse_guard(guard or []),
    )  # fmt: skip
    running = Live(
        opened, session, budget=limit, adapt_every=parse_every(adapt_every), wait=wait, every_frame=every_frame,
        reconnect=reconnect, record=record, learner=learner,
    )  # fmt: skip
    interrupted = _watch(running, out)
    _tell(running.totals, out)
    if interrupted and not opened.endless:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(SOME_FAILED if running.totals.failures else DONE)


def _one_view(method: str, preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that predict by one view of the frame where a method's defaults average several: each costs frames."""
    if preset != "recommended" or "views" in given or len((made := methods.make(method)).looks) == 1:
        return {}
    told = str(given.get("surest", not made.episodic)).lower()
    chooses = told != "false" and "surest" in methods.describe_fields(type(made))
    return {"views": "plain,grey", "surest": True} if chooses else {"views": "plain"}


def _watch(running: Live, out: Path | None) -> bool:
    """Shows and writes every frame; whether it was interrupted."""
    frames = iter(running)
    with ExitStack() as open_things, progress() as bar:
        task = bar.add_task(running.session.method.name, total=running.source.total, rate="")
        film: Film | None = None
        try:
            for shown in frames:
                if out is not None:
                    if film is None:
                        with interruptions_wait():  # or one without a frame would stay
                            film = open_things.enter_context(_film(out, shown, running.source.rate))
                    # what waits for predictions arrives when it is taken
                    when = shown.seconds if running.every_frame else shown.arrival
                    film.write(fitted(shown.overlay(), film.width, film.height), when)
                bar.update(task, advance=1 + shown.dropped, rate=_figures(shown, running.totals, bar.tasks[0].speed))
        except KeyboardInterrupt as interruption:
            with suppress(KeyboardInterrupt):
                frames.throw(interruption)  # which may have come between two frames
            return True
        finally:
            frames.close()
    return False


def _film(out: Path, shown: LiveFrame, source_rate: float | None) -> Film:
    width, height = shown.frame.size
    return Film(out, source_rate or USUAL_RATE, width, height)


def _figures(shown: LiveFrame, totals: Totals, speed: float | None) -> str:
    return f"{rate(speed)} · {1000 * shown.latency:.0f} ms · dropped {totals.dropped} · learnt {totals.learnt}"


def _check_files(out: Path | None, record: Path | None) -> None:
    """Refuses a film or a record before anything is loaded."""
    if record is not None and str(record) == "-":
        raise SettingsError("--record -: expected a file's name; a record cannot go to the standard output.")
    if out is not None:
        load_pyav()
        if out.suffix.lower() not in FORMATS:
            raise SettingsError(f"--out {out}: expected a video's name ending in {', '.join(FORMATS)}.")
        if record is not None and out.resolve() == record.resolve():
            raise SettingsError(
                f"--out and --record are both {out}: the film would replace the record. Choose two names."
            )
    for option, path in (("--out", out), ("--record", record)):
        if path is not None and path.exists():
            raise AllWeatherError(f"{path} exists already. Choose another {option}, or remove it first.")
    for path in filter(None, (out, record)):
        check_place(path)


def _tell(totals: Totals, out: Path | None) -> None:
    middle, late = totals.latencies.quantile(0.5), totals.latencies.quantile(0.95)
    if middle is None or late is None:
        narration.print("no frame was predicted")
        return
    speed = totals.predicted / max(totals.seconds, 1e-9)
    decided = ", ".join(f"{number} {kind}" for kind, number in totals.decisions.items())
    given = totals.decisions.total()
    learnt = f"learnt from {totals.learnt}" + (f" of {given} tried" if given > totals.learnt else "")
    learnt += f" ({decided})" if decided else ""
    narration.print(
        f"{totals.predicted} frames predicted, {totals.dropped} dropped, {learnt}; {speed:.1f}/s, "
        f"latency {1000 * middle:.0f} ms, 95 % within {1000 * late:.0f} ms"
    )
    if out is not None:
        narration.print(f"[bold]{plain(out)}[/]")
