"""The verbs of the command line, each imported when it is asked for: torch takes seconds, --help must not."""

import logging
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

import allweather
from allweather.app.console import data, hear

VERBS = {  # what stands in each file, and in the list of `allweather --help`
    "demo": ("demo", "Adapt the shipped network to procedural street scenes in six kinds of weather, without labels."),
    "adapt": ("adapt", "Adapt a network to images or a video without labels, and write its predictions."),
    "live": ("live", "Predict a camera, a stream or a file as it comes, and adapt beside it."),
    "score": ("score", "Score predicted labels: mIoU and its companions over all images together."),
    "bench": ("bench", "Run a plan: one JSON record per run; start it again to go on."),
    "compare": ("compare", "Say what differs between two records: settings, figures, and their images."),
    "report": ("report", "Write tables, curves and reliability diagrams from records alone."),
    "submit": ("submit", "Pack predictions of a benchmark's test images for its server."),
    "data": ("datasets", "Look at datasets on disk."),
    "convert": ("convert", "Convert a checkpoint to safetensors without loss."),
    "export": ("export", "Write an adapted network for deployment: .safetensors, .pt2, .onnx, or what moved alone."),
    "merge": (
        "merge",
        "Average the moved parameters of sessions of one base into one session.",
    ),
    "serve": ("serve", "Serve a page to see adaptation at work, and an HTTP endpoint to use it."),
    "list": ("listing", "List models, methods (with their fields, defaults and presets) or datasets."),
    "doctor": ("doctor", "Show versions, devices and extras, and check that the operator works here."),
}


def named_verb(arguments: Sequence[str]) -> str | None:
    """The verb that a command line names, or that the shell asks completions for; None where there is none."""
    words = [*arguments, *os.environ.get("_TYPER_COMPLETE_ARGS", "").split(), *os.environ.get("COMP_WORDS", "").split()]
    return next((word for word in words if word in VERBS), None)


def make_app(verb: str | None) -> typer.Typer:
    """The command line with the options of one verb; of the others it knows what help says of them."""
    app = typer.Typer(
        name="allweather",
        help="Adapt a segmentation network to the weather in front of the camera, at test time, without labels.",
        epilog="Example: allweather demo --out demo-output",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    app.callback()(_common)
    for name, (file, line) in VERBS.items():
        if name != verb:
            app.command(name, help=line)(_other)
            continue
        module = import_module(f"allweather.app.{file}")
        if name == "data":
            app.add_typer(module.group, name=name)
        else:
            app.command(name, epilog=f"Example: {module.EXAMPLE}")(getattr(module, file))
    return app


def _say_version(wanted: bool) -> None:
    if wanted:
        data.print(f"allweather {allweather.__version__}")
        raise typer.Exit


def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_say_version, is_eager=True)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Tell more: what the library logs under the name allweather.")
    ] = False,
) -> None:
    """What comes ahead of every verb."""
    hear(logging.INFO if verbose else logging.WARNING)


def _other() -> None:
    """A verb that this command line does not name."""
