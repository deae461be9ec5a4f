"""`allweather convert`: an official checkpoint as safetensors, checked against its network."""

from pathlib import Path
from typing import Annotated

import typer

from allweather.app.console import narration, plain
from allweather.models.catalogue import find_entry
from allweather.models.checkpoints import convert as convert_file


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command(epilog="Example: allweather convert model.pth --model espnetv2:2.0 --out model.safetensors")(convert)


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE", help="The official checkpoint.")],
    model: Annotated[str, typer.Option(help="The network it belongs to, as SCHEME:NAME.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
) -> None:
    """Convert a checkpoint to safetensors without loss; its name and sha256 are kept inside."""
    entry = find_entry(model)
    made = convert_file(checkpoint, entry.build(), out, name=model, drop=entry.drop, translate=entry.translate)
    dropped = f", {len(made.dropped)} training-only keys left out" if made.dropped else ""
    narration.print(f"[bold]{plain(out)}[/] from {plain(made.file)} (sha256 {made.sha256[:12]}…{dropped})")
