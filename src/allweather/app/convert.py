"""`allweather convert`: an official checkpoint as safetensors, checked against its network."""

from pathlib import Path
from typing import Annotated

import typer

from allweather.app.console import narration, plain
from allweather.app.flags import Classes, ModelArguments
from allweather.app.options import network_options
from allweather.models.catalogue import convert as convert_file

EXAMPLE = "allweather convert model.pth --model espnetv2:2.0 --out model.safetensors"


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE", help="The official checkpoint.")],
    model: Annotated[str, typer.Option(help="The network it belongs to, as SCHEME:NAME.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    model_arg: ModelArguments = None,
    classes: Classes = None,
    sha256: Annotated[str | None, typer.Option(help="Refuse a FILE of any other digest.")] = None,
) -> None:
    """Convert a checkpoint to safetensors without loss; its name and sha256 are kept inside."""
    made = convert_file(model, checkpoint, out, sha256=sha256, **network_options(model_arg, classes, None, None))
    narration.print(f"[bold]{plain(out)}[/] from {plain(made.file)}, sha256 {made.sha256}")
    if made.dropped:
        narration.print(f"left out: {plain(', '.join(made.dropped))}")
