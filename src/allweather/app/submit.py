"""`allweather submit`: predictions packed as a benchmark's server takes them."""

from pathlib import Path
from typing import Annotated

import typer

from allweather.app.console import narration, plain, warn
from allweather.submit import submit as pack

EXAMPLE = "allweather submit acdc adapted/ --out acdc.zip"


def submit(
    benchmark: Annotated[str, typer.Argument(help="acdc, dark-zurich, muses or cityscapes.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of `allweather adapt`.")],
    out: Annotated[Path, typer.Option(help="The archive to write.")],
) -> None:
    """Pack predictions of a benchmark's test images for its server, with names, sizes, values and counts checked."""
    made = pack(benchmark, run, out)
    if made.note:
        warn(made.note)
    narration.print(f"{made.images} images in [bold]{plain(made.path)}[/]; send it to {made.server}")
