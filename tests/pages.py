"""The snippets and commands of a documentation page: found, checked against what there is, and run as they stand."""

import contextlib
import io
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from command_line import Done, allweather

from allweather.app.verbs import make_app

ROOT = Path(__file__).parents[1]
PROGRAMS = ("allweather", "python", "pip", "make", "curl", "uvicorn", "source")
SHOWN = ("text", "bibtex", "{toctree}", "{include}", "{eval-rst}", "{command-line}")  # kinds of blocks that run nothing


MISTAKE = typer.BadParameter.__base__ or Exception  # what the parser raises for a call that it does not understand


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: what it says it is, and what stands in it."""

    kind: str
    text: str

    @property
    def name(self) -> str | None:
        """The file that it is, by its first line."""
        named = re.match(r"# (\S+\.(?:py|toml))\n", self.text)
        return named[1] if self.kind and named else None

    @property
    def commands(self) -> list[str]:
        """Its lines, where it is of commands."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        words = [shlex.split(line, comments=True) for line in lines] if not self.kind and _of_commands(lines) else []
        return [line for line, found in zip(lines, words, strict=True) if found] if words else []


def _of_commands(lines: list[str]) -> bool:
    return all(_program(line) in PROGRAMS for line in lines)


def _program(line: str) -> str:
    """The first word that is no variable."""
    words = line.split()
    return next((word for word in words if not re.match(r"[A-Z_]+=", word)), "")


def blocks(page: Path) -> list[Block]:
    """All fenced blocks, in order."""
    return [
        Block(kind, text)
        for kind, text in re.findall(r"^```(\S*)[^\n]*\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    ]


def snippets(page: Path) -> tuple[dict[str, str], list[str]]:
    """The files that a page shows, by name, and its commands."""
    found = blocks(page)
    files = {block.name: block.text for block in found if block.name}
    return files, [line for block in found for line in block.commands]


def run_page(page: Path, folder: Path) -> list[Done]:
    """Writes the files and runs the commands of a page, in order; gives what the commands said."""
    files, commands = snippets(page)
    for name, text in files.items():
        (folder / name).write_text(text)
    return [run_line(line) for line in commands]


def run_line(line: str) -> Done:
    program, *arguments = shlex.split(line, comments=True)
    if program == "allweather":
        return allweather(*arguments)
    sys.path.insert(0, str(Path.cwd()))  # as for `python FILE`
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        runpy.run_path(arguments[0], run_name="__main__")
    return Done(0, out.getvalue(), err.getvalue())


def runs_here(line: str) -> bool:
    """Whether a command is run by the tests: nothing is installed, and no other Python is started."""
    return _program(line) == "allweather" or bool(re.match(r"python \w+\.py", line))


def faults(page: Path) -> Iterator[str]:
    """What a page shows that could not be, without running it."""
    files, _ = snippets(page)
    for block in blocks(page):
        if block.kind == "python":
            compile(block.text, str(page), "exec")
        elif block.kind == "toml":
            tomllib.loads(block.text)
        elif block.kind in SHOWN:
            continue
        elif re.match(r"\S+/\n", block.text):
            yield from (f"no folder {name}" for name in _missing_folders(block.text))
        elif block.kind or not block.commands:
            yield f"a block of kind '{block.kind}' is none of python, toml, commands, {', '.join(SHOWN)}: {block.text}"
        for line in block.commands:
            yield from _command_faults(line, files)


def _missing_folders(tree: str) -> list[str]:
    """Of a tree's folders, which begin a line or follow three spaces, those that are neither here nor under its top."""
    top = tree.split("\n")[0]
    names = [top, *re.findall(r"(?:^| {2,})(\w+/)(?= )", tree, re.MULTILINE)]
    return [name for name in names if not ((ROOT / name).is_dir() or (ROOT / top / name).is_dir())]


def _command_faults(line: str, files: dict[str, str]) -> Iterator[str]:
    program, *arguments = shlex.split(line[line.index(_program(line)) :], comments=True)
    if program == "allweather":
        yield from _parsing_faults(arguments)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        yield from (f"{line}: no such target" for word in arguments if "=" not in word and word not in targets)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [extra for group in re.findall(r"\[([\w,-]+)\]", line) for extra in group.split(",")]
        yield from (f"{line}: no such extra '{extra}'" for extra in named if extra not in extras)
    elif program in ("curl", "uvicorn", "source"):
        return  # of others
    elif arguments[0] == "-m":
        place = ROOT / f"{arguments[1].replace('.', '/')}.py"
        yield from () if place.exists() or arguments[1] in ("venv", "build", "pip") else (f"{line}: no such module",)
    elif arguments[0] not in files and not (ROOT / arguments[0]).exists():
        yield f"{line}: no such file on the page or in the repository"


def _parsing_faults(arguments: list[str]) -> Iterator[str]:
    """What the command line's own parser has against them; nothing is run."""
    verb = next((word for word in arguments if not word.startswith("-")), None)
    command = typer.main.get_command(make_app(verb))
    words = arguments
    while words and not words[0].startswith("-") and (below := getattr(command, "commands", None)) is not None:
        if words[0] not in below:
            yield f"allweather {words[0]}: no such verb"
            return
        command, words = below[words[0]], words[1:]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            command.make_context("allweather", list(words))
    except SystemExit:
        return
    except typer.Exit:
        return
    except MISTAKE as error:
        yield f"allweather {shlex.join(arguments)}: {error}"
