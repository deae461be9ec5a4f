"""Docstrings of the public surface: every argument is named, every class of error exists, every example runs."""

import ast
import builtins
import doctest
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clips import clip, scene

import allweather
from allweather import errors, rgb

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
ERRORS = {name for module in (errors, rgb, builtins) for name, value in vars(module).items() if inspect.isclass(value)}


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
    """Parameters that the docstring does not name, dataclass fields included."""
    text = inspect.getdoc(thing) or ""
    names = [name for name in inspect.signature(thing).parameters if name not in ("self", "cls", "args", "kwargs")]
    return [name for name in names if not name.startswith("_") and not re.search(rf"\b{name}\b", text)]


@pytest.mark.parametrize("name", CALLABLES)
def test_a_docstring_names_every_argument(name: str) -> None:
    thing = CALLABLES[name]
    if inspect.isclass(thing) and issubclass(thing, Exception | allweather.methods.Method):
        return  # raised, not made, by users; the fields of methods have their help
    assert unnamed(thing) == []


def test_an_argument_without_a_word_would_be_found() -> None:
    def resize(picture: object, width: int, height: int) -> None:
        """A picture of another width."""

    assert unnamed(resize) == ["height"]


def test_errors_that_docstrings_name_exist() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.get_docstring(node) if isinstance(node, ast.ClassDef | ast.FunctionDef) else None
            section = re.search(r"^Raises:\n((?:    .*\n?|\n)+)", text or "", re.MULTILINE)
            named = re.findall(r"^    (\w+):", section[1], re.MULTILINE) if section else []
            assert set(named) <= ERRORS | {"CalledProcessError", "Lost"}, f"{path.name}: {named}"


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand, in a folder with a film of two frames."""
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "drive.mp4", scene(2))
    done = doctest.testmod(importlib.import_module(module))
    assert done.failed == 0 and done.attempted
