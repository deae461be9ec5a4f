"""`allweather merge`: the sessions of a fleet as one."""

from pathlib import Path
from typing import Annotated

import typer

from allweather.app.console import narration, plain
from allweather.scale.fleet import merge as merge_sessions

EXAMPLE = "allweather merge adapted/sessions/*.safetensors --out merged.safetensors"


def merge(
    sessions: Annotated[
        list[Path],
        typer.Argument(metavar="SESSION…", help="Files of --save-session, or of OUT/sessions."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the merged session goes; --from-session reads it.")],
) -> None:
    """Average the moved parameters of sessions of one base into one session.

    Each counts by the updates that its guard has let stand; sessions of other weights or settings are refused.
    Merge all at once: a merged session counts as its longest.
    """
    merged = merge_sessions(sessions, out)
    for name, share in merged.weights.items():
        narration.print(f"{share:6.1%}  {plain(name)}")
    narration.print(
        f"{merged.parameters} parameters of {len(merged.weights)} sessions with {merged.updates} updates, "
        f"{merged.apart:.2%} apart, in [bold]{plain(out)}[/]"
    )
