"""The snippets and commands of a documentation page, run as they stand."""

import contextlib
import io
import re
import runpy
import shlex
import sys
from pathlib import Path

from command_line import Done, allweather


def snippets(page: Path) -> tuple[dict[str, str], list[str]]:
    """The files that a page shows, by name, and its commands."""
    files: dict[str, str] = {}
    commands: list[str] = []
    for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.S | re.M):
        named = re.match(r"# (\S+\.(?:py|toml))\n", text)
        if kind and named:
            files[named[1]] = text
        elif not kind:
            commands += text.splitlines()
    return files, commands


def run_page(page: Path, folder: Path) -> list[Done]:
    """Writes the files and runs the commands of a page, in order; gives what the commands said."""
    files, commands = snippets(page)
    for name, text in files.items():
        (folder / name).write_text(text)
    return [run_line(line) for line in commands]


def run_line(line: str) -> Done:
    program, *arguments = shlex.split(line)
    if program == "allweather":
        return allweather(*arguments)
    sys.path.insert(0, str(Path.cwd()))  # as for `python FILE`
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        runpy.run_path(arguments[0], run_name="__main__")
    return Done(0, out.getvalue(), err.getvalue())
