"""Docstrings of the public surface: every argument is named, every class of error exists, every example runs."""

import ast
import builtins
import doctest
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from clips import clip, scene

import allweather

PACKAGE = Path(allweather.__file__).parent
ROOMS = (
    "methods",
    "models",
    "session",
    "data",
    "data.datasets",
    "pictures",
    "export",
    "live",
    "serve",
    "report",
    "submit",
)
EXAMPLES = sorted(
    ".".join(("allweather", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text()
)
HEAVY = ("allweather.serve.__init__",)  # its example imports Gradio
BUILTIN = {name for name, value in vars(builtins).items() if inspect.isclass(value)}


def public() -> Iterator[tuple[str, Any]]:
    """Name and object of every public function and class, and of the classes' public methods."""
    for module in (allweather, *(importlib.import_module(f"allweather.{room}") for room in ROOMS)):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isfunction(thing) or (inspect.isclass(thing) and thing.__module__.startswith("allweather.")):
                yield f"{module.__name__}.{name}", thing
                yield from _methods(f"{module.__name__}.{name}", thing)


def _methods(place: str, thing: Any) -> Iterator[tuple[str, Any]]:
    for name, method in vars(thing).items() if inspect.isclass(thing) else ():
        method = getattr(method, "__func__", method)
        if inspect.isfunction(method) and not name.startswith("_") and method.__doc__:  # others inherit what they say
            yield f"{place}.{name}", method


CALLABLES = dict(public())


def unnamed(thing: Callable[..., Any]) -> list[str]:
    """Parameters that the docstring does not name, dataclass fields included; a field may have a help of its own."""
    text = inspect.getdoc(thing) or ""
    helped = {entry.name for entry in fields(thing) if entry.metadata.get("help")} if is_dataclass(thing) else set()
    names = set(inspect.signature(thing).parameters) - {"self", "cls", "args", "kwargs"} - helped
    return sorted(name for name in names if not name.startswith("_") and not re.search(rf"\b{name}\b", text))


@pytest.mark.parametrize("name", CALLABLES)
def test_a_docstring_names_every_argument(name: str):
    thing = CALLABLES[name]
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return  # raised, not made, by users
    assert unnamed(thing) == []


def test_an_argument_without_a_word_would_be_found():
    def resize(picture: object, width: int, height: int):
        """A picture of another width."""

    assert unnamed(resize) == ["height"]


def test_errors_that_docstrings_name_exist():
    trees = {path: list(ast.walk(ast.parse(path.read_text()))) for path in PACKAGE.rglob("*.py")}
    known = BUILTIN | {node.name for nodes in trees.values() for node in nodes if isinstance(node, ast.ClassDef)}
    for path, nodes in trees.items():
        for node in nodes:
            text = ast.get_docstring(node) if isinstance(node, ast.ClassDef | ast.FunctionDef) else None
            section = re.search(r"^Raises:\n((?:    .*\n?|\n)+)", text or "", re.MULTILINE)
            named = re.findall(r"^    (\w+):", section[1], re.MULTILINE) if section else []
            assert set(named) <= known, f"{path.name}: {named}"


@pytest.mark.parametrize(
    "module", [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in EXAMPLES]
)
def test_the_examples_run(module: str, here: Path):
    """As they stand, in a folder with a film of two frames."""
    clip(here / "drive.mp4", scene(2))
    done = doctest.testmod(importlib.import_module(module))
    assert done.failed == 0 and done.attempted
