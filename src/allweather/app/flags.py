"""Options that several verbs take, declared once; each verb gives its own default."""

from pathlib import Path
from typing import Annotated

import typer

from allweather.values import MOST_THREADS

ModelName = Annotated[
    str,
    typer.Option(help="The network, as SCHEME:NAME (see `allweather list models`), or your own: mynets.py:build."),
]
Weights = Annotated[Path | None, typer.Option(help="The network's checkpoint.")]
Sha256 = Annotated[str | None, typer.Option(help="Refuse a checkpoint of any other digest.")]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Run a network without a checkpoint all the same, to try things.")
]
ModelArguments = Annotated[
    list[str] | None,
    typer.Option("--model-arg", metavar="NAME=VALUE", help="An argument of your own network; repeatable."),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE.toml", help="Class set of a library's or your own network; a file has names of your own."
    ),
]
Channels = Annotated[
    str | None, typer.Option(metavar="R,G,B", help="What your own network expects, for pixels in 0..1.")
]
MethodName = Annotated[str, typer.Option(help="See `allweather list methods`; or your own: mymethod.py:MyMethod.")]
Preset = Annotated[
    str, typer.Option(help="recommended; paper: as published; best of either MALL; fast of mall-domain.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A field of the method; repeatable.")
]
GuardLimits = Annotated[
    list[str] | None,
    typer.Option("--guard", metavar="FIELD=VALUE", help="A limit of the collapse guard, or enabled=false; repeatable."),
]
Seed = Annotated[int, typer.Option(help="Seed of the session's random numbers.")]
Workers = Annotated[
    str | None, typer.Option(metavar="N|auto", help="Spread the work over so many processes; auto: one a core, or GPU.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Let Ray run the workers: HOST:PORT of a cluster, auto, or local."),
]
Threads = Annotated[int, typer.Option(min=1, max=MOST_THREADS, metavar="N", help="torch's threads in each worker.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, …")]
