"""The verbs of the command line with their options, taken from the parser itself: the directive `command-line`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from allweather.app.verbs import VERBS, make_app


def page() -> Iterator[str]:
    """Lines of Markdown: a section for each verb, with its usage, and a table of its options."""
    for verb in VERBS:
        root = typer.main.get_command(make_app(verb))
        command = root.commands[verb]
        for name, one in [(verb, command), *((f"{verb} {sub}", it) for sub, it in _below(command))]:
            yield from _section(name, one)


def _below(command: Any) -> list[tuple[str, Any]]:
    return list(getattr(command, "commands", {}).items())


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"## `allweather {name}`"
    yield ""
    yield from (command.help or "").splitlines()
    yield ""
    if rows := [row for parameter in command.params for row in _row(parameter)]:
        yield from ("| argument or option | default | meaning |", "|---|---|---|", *rows, "")
    if example := getattr(command, "epilog", None):
        yield from (f"{example.partition(':')[0]}:", "", "```text", example.partition(": ")[2], "```", "")


def _row(parameter: Any) -> Iterator[str]:
    if parameter.name == "help" or getattr(parameter, "hidden", False):
        return
    option = parameter.opts[0].startswith("-")
    shown = " ".join(filter(None, [", ".join(parameter.opts) if option else "", parameter.metavar]))
    default = parameter.default if isinstance(parameter.default, str | int | float | Path) else ""
    default = "" if default is False else getattr(default, "value", default)
    annotation = parameter.type_descriptor.annotation
    named = ", ".join(f"`{value}`" for value in get_args(annotation)) if get_origin(annotation) is Literal else ""
    meaning = (getattr(parameter, "help", None) or "") + (f" One of {named}." if named else "")
    needed = " Required." if parameter.required else ""
    yield f"| `{shown or parameter.name.upper()}` | {default} | {meaning}{needed} |".replace("\n", " ")


class CommandLine(SphinxDirective):
    """Sections of all verbs."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(page()), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
