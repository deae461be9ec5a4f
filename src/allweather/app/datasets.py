"""`allweather data`: what of a dataset is on disk, what is missing, and who offers it."""

from pathlib import Path
from typing import Annotated

import typer

from allweather.app.console import data, narration, plain, print_json, table, warn
from allweather.data.datasets import check as check_dataset
from allweather.data.datasets import find_dataset

group = typer.Typer(
    help="Look at datasets on disk.",
    epilog="Example: allweather data check acdc --root acdc/",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@group.callback()
def data_group() -> None:
    """Look at datasets on disk."""


@group.command(epilog="Example: allweather data check acdc --root acdc/ --json")
def check(
    name: Annotated[str, typer.Argument(help="See `allweather list datasets`.")],
    root: Annotated[Path, typer.Option(help="The folder that holds the publisher's layout.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Count the images and labels of every split; nothing is opened and nothing is downloaded."""
    found = check_dataset(find_dataset(name), root)
    if json:
        print_json(found)
        return
    rows = [(split, str(count), str(found["published"].get(split, "–"))) for split, count in found["splits"].items()]
    data.print(table(found["title"], ("split", "found", "published"), rows))
    for split, sought in found["missing"].items():
        whole = split.rpartition("/")[0]
        if whole not in found["missing"]:
            warn(f"{split} is missing; looked for {', '.join(sought)}")
    if found["missing"]:
        narration.print(plain(f"{found['title']} is offered at {found['publisher']} ({found['terms']})"))
    for split, absent in found["absent"].items():
        warn(f"{split}: {absent['images']} images that its list names are not there, e.g. {absent['first']}")
    for split, fallen in found["unlisted"].items():
        warn(f"{split}: its list {fallen['list']} is not there; {fallen['images']} images count that it may leave out")
    for split, numbers in found["differing"].items():
        warn(f"{split} holds {numbers['found']} images; {numbers['published']} are published")
    for split, absent in found["unlabelled"].items():
        warn(f"{split}: {absent['images']} images have no label, e.g. {absent['first']}")
    if found["notes"]:
        narration.print(plain(found["notes"]))
