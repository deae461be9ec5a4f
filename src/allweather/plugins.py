"""Code of the user's own: files, modules and installed packages that bring networks, methods and datasets."""

import ast
import hashlib
import importlib.util
import logging
import pickle
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from allweather.errors import AllWeatherError, SettingsError, first_line, unknown

LOG = logging.getLogger(__name__)
T = TypeVar("T")

# What code of someone else's may end with, by exceptions of its own too; KeyboardInterrupt and SystemExit go their way.
FAULTS = (Exception,)
_WHOSE = "failed within: "  # opens the note of `told_as`
_IDENTIFIER = r"[^\W\d]\w*"
_DOTTED = rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*"
_PLACE = re.compile(rf"(?P<source>.+\.py|{_DOTTED}):(?P<name>{_IDENTIFIER})")
_IN_MODULE = re.compile(rf"({_DOTTED}):{_IDENTIFIER}(?::|$)")
_files: dict[tuple[Path, str], ModuleType] = {}  # files that have run, by path and digest
_brought: set[str] = set()  # first names of modules that bring something


@dataclass(frozen=True)
class Kind:
    """What can be brought along.

    Attributes:
        word: what messages call it.
        group: the entry points of packages that bring it.
        error: what one that cannot be used raises.
        parts: whether a colon and a part may follow a name.
    """

    word: str
    group: str
    error: type[AllWeatherError]
    parts: bool = False


@dataclass(frozen=True)
class Place:
    """Where a thing of the user's own stands: a name in a Python file, or in a module that can be imported."""

    source: str
    name: str

    @property
    def is_file(self) -> bool:
        """Whether the source is a file, not a module."""
        return self.source.endswith(".py")

    @property
    def label(self) -> str:
        """`FILE.py:NAME` without the file's folder, or `package.module:NAME`."""
        return f"{Path(self.source).name if self.is_file else self.source}:{self.name}"


def find_place(text: str) -> Place | None:
    """The place that `FILE.py:NAME` or `package.module:NAME` says; None for other text, and where there is no module.

    A file need not exist to be meant: `load_own` says so then.
    """
    match = _PLACE.fullmatch(text)
    if match is None:
        return None
    place = Place(match["source"], match["name"])
    return place if place.is_file or _importable(place.source) else None


def names_code(value: object) -> bool:
    """Whether a setting's value, or one of several in a list or with commas between them, is spelt as a place is.

    What is installed here does not matter: a module that is not there today may be there when it is sought.
    """
    if isinstance(value, list | tuple):
        return any(map(names_code, value))
    return isinstance(value, str) and any(_PLACE.fullmatch(part.strip()) for part in (value, *value.split(",")))


def load_own(place: Place, kind: Kind) -> Any:
    """What stands at a place; the file or module runs, which is said on stderr.

    Raises:
        AllWeatherError: the kind's error when it cannot be run, SettingsError when it has no such name.
    """
    module = guarded(place.label, kind, lambda: _module(place, kind))
    _brought.add(module.__name__.partition(".")[0])
    if not hasattr(module, place.name):
        raise unknown(f"name in {Path(place.source).name}", place.name, _public(module))
    return getattr(module, place.name)


def guarded(label: str, kind: Kind, call: Callable[[], T]) -> T:
    """What `call` gives, which runs code of the user's own.

    Raises:
        AllWeatherError: the kind's error, with where and why, for whatever that code raises.
    """
    try:
        return call()
    except AllWeatherError:
        raise
    except FAULTS as error:
        raise kind.error(f"{label} cannot be used as a {kind.word}: {where(error)}.") from error


@contextmanager
def told_as(name: str) -> Iterator[None]:
    """What fails inside goes on its way, with a note of whose code it was, for `own_fault`."""
    try:
        yield
    except FAULTS as error:
        if not isinstance(error, AllWeatherError):
            error.add_note(f"{_WHOSE}{name}")
        raise


def told_of(code: object, name: str) -> AbstractContextManager[None]:
    """`told_as` around what is none of this package's: a function, or an instance of a class; nothing around ours."""
    ours = str(getattr(code, "__module__", "")).startswith(f"{__package__}.")
    return nullcontext() if ours else told_as(name)


def own_fault(error: BaseException) -> str | None:
    """Whose code failed, where and why, in a line; None where neither `told_as` nor a module that brought code tells.

    A message alone does not tell a fault of the user's own code from one of this package.
    """
    noted = [note.removeprefix(_WHOSE) for note in getattr(error, "__notes__", ()) if note.startswith(_WHOSE)]
    passed = {str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)}
    inside = {name.partition(".")[0] for name in passed} & _brought - {__package__, "torch"}
    if not (noted or inside):
        return None
    return f"{noted[0] if noted else 'your own code'} failed: {where(error)}."


def where(error: BaseException) -> str:
    """File, line and reason of an error; the innermost place that is no library's, where there is one."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}".rstrip(".")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    passed = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in passed if not frame.filename.startswith(("<", __file__))]
    libraries = (str(Path(__file__).parent), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
    own = [frame for frame in frames if not frame.filename.startswith(libraries)] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}: {reason}" if own else reason


def code_digest(text: str, kind: Kind | None = None) -> str:
    """sha256 of the file that `FILE.py:NAME` names, or of `package.module:NAME`'s; '' for every other name.

    Args:
        kind: whose installed packages may have given the name: then of the package's name, version and module.

    Raises:
        SettingsError: when there is no such file.
    """
    path, packages = own_file(text), installed(kind) if kind else {}
    if path is not None:
        return hashlib.sha256(_read(Path(path))).hexdigest()
    entry, match = packages.get(text.split(":")[0] if kind and kind.parts else text), _IN_MODULE.match(text)
    module = entry.module if entry else match[1] if match else ""
    told = (package_of(entry).encode() if entry else b"") + _content(module)
    return hashlib.sha256(told).hexdigest() if told else ""


def own_file(text: str) -> str | None:
    """The file of a name `FILE.py:NAME` or `FILE.py:NAME:MORE`, as it is written there; None for every other name."""
    match = re.match(rf"(.+\.py):{_IDENTIFIER}(?::|$)", text)
    return match[1] if match else None


def files_that_ran() -> list[tuple[str, str]]:
    """The files of the user's own that have run, each with its module's name, for `run_again` in another process.

    Those that are gone by now are left out: what they made is used where it is, and may not be needed there.
    """
    return [(str(path), module.__name__) for (path, _), module in _files.items() if path.exists()]


def pickled(thing: object, what: str, instead: str) -> bytes:
    """What another process makes the thing from, after `run_again`.

    Args:
        what: the beginning of the message where that cannot be done.
        instead: what to do then.

    Raises:
        SettingsError: for what cannot be pickled, whatever its classes raise.
    """
    try:
        return pickle.dumps(thing)
    except FAULTS as error:
        raise SettingsError(f"{what} ({first_line(error)}). {instead}") from error


def run_again(files: list[tuple[str, str]]) -> None:
    """Runs them under the same names, so that what they made can be unpickled."""
    for path, name in files:
        _run(Path(path), name)


def without_name(text: str, kind: Kind) -> SettingsError | None:
    """The error for a name that is a Python file and says nothing of what is in it; None for every other name."""
    path = Path(text)
    if path.suffix != ".py":
        return None
    try:
        body = ast.parse(_read(path)).body
    except (SyntaxError, ValueError):
        body = []
    names = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    found = ", ".join(f"{text}:{name}" for name in names if not name.startswith("_"))
    return SettingsError(f"{text}: say what in that file makes the {kind.word}: {found or f'{text}:NAME'}.")


def installed(kind: Kind) -> dict[str, EntryPoint]:
    """The entry points of a kind by name, those of installed packages."""
    return {entry.name: entry for entry in sorted(entry_points(group=kind.group), key=lambda entry: entry.name)}


def usable(kind: Kind, known: Container[str], made: Callable[[EntryPoint], T]) -> tuple[dict[str, T], dict[str, str]]:
    """What is made of installed packages' entry points by name, and why of others nothing is.

    Args:
        known: names that no package may give anew.
    """
    found: dict[str, T] = {}
    broken: dict[str, str] = {}
    for name, entry in installed(kind).items():
        try:
            if name in known:
                raise SettingsError(
                    f"{package_of(entry)} calls a {kind.word} {name}, a name that is taken here. Remove that package, "
                    "or ask those who publish it for another name."
                )
            found[name] = made(entry)
        except AllWeatherError as error:
            broken[name] = str(error)
    return found, broken


def load_installed(entry: EntryPoint, kind: Kind) -> Any:
    """What an entry point names.

    Raises:
        AllWeatherError: the kind's error when its package cannot be imported.
    """
    _brought.add(entry.module.partition(".")[0])
    return guarded(f"'{entry.name}' of {package_of(entry)}", kind, entry.load)


def package_of(entry: EntryPoint) -> str:
    """Name and version of the package that brings an entry point."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _module(place: Place, kind: Kind) -> ModuleType:
    if not place.is_file:
        if place.source not in sys.modules:
            tell_run(place.source)
        return import_module(place.source)
    path = Path(place.source).resolve()
    content = _read(Path(place.source))
    key = (path, hashlib.sha256(content).hexdigest())
    if key not in _files:
        tell_run(place.source)
        _files[key] = _run(path, f"{path.stem}_{key[1][:8]}")
    return _files[key]


def _run(path: Path, name: str) -> ModuleType:
    """The module that a file makes; files beside it can be imported by it, after all that is installed.

    Raises:
        SettingsError: where it imports one of those and would get another file of that name.
    """
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    assert spec is not None and spec.loader is not None
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    for imported in _imported(path, set()):
        _check_beside(path, imported)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _imported(path: Path, seen: set[Path]) -> set[str]:
    """Modules that a file, or one beside it that it imports, imports by name and that lie beside it."""
    if path in seen or path.suffix != ".py":
        return set()
    seen.add(path)
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (OSError, SyntaxError, ValueError):  # said better when it runs
        return set()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    there = {name.partition(".")[0]: _beside(path, name.partition(".")[0]) for name in names}
    found = {name: place for name, place in there.items() if place and name not in sys.stdlib_module_names}
    return set(found).union(*(_imported(place, seen) for place in found.values()))


def _beside(path: Path, name: str) -> Path | None:
    places = (path.parent / f"{name}.py", path.parent / name / "__init__.py")
    return next((place for place in places if place.is_file()), None)


def _check_beside(path: Path, name: str) -> None:
    """Refuses a file that would import another module of this name than the one beside it."""
    found = None
    with suppress(ImportError, ValueError):  # of a module that was made by hand
        found = getattr(sys.modules.get(name), "__file__", None) or getattr(
            importlib.util.find_spec(name), "origin", None
        )
    if not found or Path(found).resolve().is_relative_to(path.parent):
        return
    raise SettingsError(
        f"{path.name} imports {name}, which lies beside it as {_beside(path, name)}, and {found} would be imported in "
        "its place. Rename one of them."
    )


class _Loader(SourceFileLoader):
    """Compiles the file each time: bytecode kept from a second ago would be another file's."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def tell_run(source: str) -> None:
    """Says on stderr that a file or module of the user's own is about to run."""
    LOG.warning("running %s, your own code", source)


def _read(path: Path, read: Callable[[str], bytes] | None = None) -> bytes:
    try:
        return read(str(path)) if read else path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"cannot read {path}: {error.strerror or error}. Give the path of a Python file."
        ) from error


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except ValueError:  # a module that was made by hand
        return True


def _content(module: str) -> bytes:
    """Of a module's file, which may be in an archive; nothing of it runs."""
    importlib.invalidate_caches()  # what archives hold
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # a module that was made by hand, or none
        return b""
    for part in rest:
        first += f".{part}"
        spec = spec and PathFinder.find_spec(first, spec.submodule_search_locations or [])
    read = getattr(spec and spec.loader, "get_data", None)
    return _read(Path(spec.origin), read) if spec and spec.origin and read else b""


def _public(module: ModuleType) -> list[str]:
    """Names that the module itself defines, or whatever it has where it defines none."""
    own = [n for n, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return [name for name in own or vars(module) if not name.startswith("_")]
