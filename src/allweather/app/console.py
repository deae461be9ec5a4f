"""How the command line speaks: narration on stderr, data on stdout, one way to show progress and to fail."""

import json
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)  # fmt: skip
from rich.table import Table
from rich.text import Text

from allweather import errors

narration = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
data = Console(soft_wrap=True, highlight=False, emoji=False)

DONE, SOME_FAILED, USER_MISTAKE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
SHOWN = 5  # names in a message
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # what a terminal obeys, line breaks too, or cannot be sent


class Words(TextColumn):
    """A column of a bar whose text is shown as it is."""

    def render(self, task: Task) -> Text:
        return Text(spelt(self.text_format.format(task=task)))


def progress() -> Progress:
    """A bar with count, rate and time left, on stderr; it leaves no trace when it is done."""
    return Progress(
        SpinnerColumn(),
        Words("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Words("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        Words("left"),
        console=narration,
        transient=True,
    )


def rate(task_speed: float | None) -> str:
    """Frames per second, or seconds per frame where it is slow."""
    if not task_speed:
        return ""
    return f"{task_speed:.1f}/s" if task_speed >= 1 else f"{1 / task_speed:.1f} s each"


def tell_interrupted(images: int) -> None:
    """Says what an interrupted run has done, and how to go on."""
    narration.print(f"interrupted: {images} images are complete; add --resume for the rest.")


def tell_done(
    images: str, folder: Path, notes: Iterable[str], damage: str | None, failures: Collection[str],
    lost: Iterable[str] = (),
) -> None:  # fmt: skip
    """What a run came to: images in the folder and what became of them; what is lost, and the first of the failures."""
    narration.print(", ".join([f"{images} in [bold]{plain(folder)}[/]", *filter(None, notes)]))
    for line in lost:
        warn(line)
    if damage:
        warn(f"{damage}.")
    if failures:
        first = ", ".join(list(failures)[:SHOWN]) + ", …" * (len(failures) > SHOWN)
        warn(f"{len(failures)} images have no prediction: {first}")


def print_json(content: Mapping[str, Any] | Sequence[Any]) -> None:
    """JSON on stdout, for programs."""
    plainly = (sys.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8"
    text = json.dumps(content, indent=1, ensure_ascii=plainly)
    typer.echo(re.sub(f"(?!\n){HIDDEN.pattern}", lambda found: f"\\u{ord(found[0]):04x}", text))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], numbers_from: int = 1) -> Table:
    """A table whose columns from `numbers_from` on are aligned to the right; names in it are shown as they are."""
    made = Table(title=plain(title), title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        justify: Literal["right", "left"] = "right" if index >= numbers_from else "left"
        made.add_column(plain(column), justify=justify, overflow="fold", no_wrap=index == 0)
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in row))
    return made


def complain(message: str) -> None:
    """What was wrong, on stderr."""
    narration.print(f"[bold red]error:[/] {plain(message)}")


def warn(message: str, *below: str) -> None:
    """A line of narration that wants attention, and lines that belong to it."""
    narration.print(f"[yellow]warning:[/] {plain(message)}")
    for line in below:
        narration.print(plain(line))


def narrate_warnings() -> None:
    """From now on what libraries warn their users of is narration; other warnings keep the interpreter's form."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if category is UserWarning or category.__module__ == errors.__name__:
            warn(str(message))
        else:
            shown(message, category, *rest, **more)

    warnings.showwarning = cast(Any, show)


def hear(level: int) -> None:
    """Narrates what the library logs from this level on; once, however often it is called."""
    log = logging.getLogger("allweather")
    for handler in [each for each in log.handlers if isinstance(each, _Narrator)]:
        log.removeHandler(handler)
    log.addHandler(_Narrator())
    log.setLevel(level)


class _Narrator(logging.Handler):
    """Log records as narration, with their tracebacks; those from warnings on as warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            raised = record.exc_info and "".join(traceback.format_exception(record.exc_info[1]))
            warn(record.getMessage(), *(f"  {line}" for line in (raised or "").splitlines()))
        else:
            narration.print(plain(record.getMessage()))


def plain(text: object) -> str:
    """The text on one line, with nothing in it read as markup: a path may hold brackets, or a terminal's commands."""
    return escape(spelt(text))


def spelt(text: object) -> str:
    """The text with control characters, line breaks too, as \\x1b, and bytes that are no UTF-8 as \\xff."""
    return HIDDEN.sub(_spelling, str(text))


def _spelling(found: re.Match[str]) -> str:
    code = ord(found[0])
    a_byte = code < 0x100 or 0xDC80 <= code < 0xDD00  # as Python reads names of files
    return f"\\x{code & 0xFF:02x}" if a_byte else f"\\u{code:04x}"
