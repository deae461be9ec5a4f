"""The sections of a plan: settings from its tables, or from those of plans that it names."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, get_origin

from allweather.classes import ClassSet
from allweather.data.class_files import find_classes, is_file
from allweather.data.toml_file import read_toml
from allweather.errors import AllWeatherError, SettingsError, check_known
from allweather.plugins import own_file
from allweather.runs.places import resolve
from allweather.runs.plan_checks import check_values
from allweather.values import parse_value

FIELDS = Mapping[str, Any]
OWN = {"own": True}  # of fields that say where code of the user's own is; no key of a plan sets them
T = TypeVar("T")
N = TypeVar("N", bound="Named")


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a plan names; its paths, those of code of the user's own too, are sought from the plan's folder.

    Attributes:
        code: sha256 of the user's own code that the name says, and of classes of one's own; '' where there is neither.
            The run is another with another.
        folder: the plan's, absolute, which is no part of what the run is.
        needs: keys of its table that do nothing without another.
    """

    code: str = field(default="", metadata=OWN)
    folder: str = field(default="", compare=False, metadata=OWN)
    needs: ClassVar[Mapping[str, str]] = {}

    def digest(self) -> str:
        """`code` as the files are now."""
        raise NotImplementedError

    def places(self) -> list[str]:
        """The files and folders that it names, as they are found."""
        given = vars(self)
        named = [own_file(name) for name in (given["name"], *given.get("sequence", ()))]
        named += [given.get(key) for key in ("weights", "root", "images", "labels")]
        named += [name for name in (given.get("classes"),) if name and is_file(name)]
        return self._found(filter(None, named))

    def _found(self, names: Iterable[str]) -> list[str]:
        return [name if name.startswith(("~", "${")) else os.path.realpath(Path(self.folder, name)) for name in names]

    def located(self, name: str) -> str:
        """A name with its file, if it has one, as it is found from here."""
        file = own_file(name)
        return name if file is None else f"{resolve(file, self.folder)}{name[len(file) :]}"

    def class_set(self) -> ClassSet | None:
        """The classes that it names."""
        name = vars(self).get("classes")
        return name and find_classes(str(resolve(name, self.folder)) if is_file(name) else name)

    def filled(self) -> Self:
        """With what its table leaves to others to say."""
        return self


def read_section(path: Path, content: Mapping[str, Any], section: str, kind: type[N]) -> list[N]:
    """What the tables of a plan's section say, or those of the plans that it names.

    Raises:
        AllWeatherError: for a wrong table, and where two plans spell alike what lies in different places.
    """
    named = content.get(section)
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return _read(path, named, section, kind)
    others = [resolve(name, path.parent) for name in names]
    found = [
        (each, spec) for each in others for spec in _read(each, read_toml(each, "plan").get(section), section, kind)
    ]
    for (one, first), (other, second) in combinations(found, 2):
        if _spelt(first) == _spelt(second) and first.places() != second.places():
            raise SettingsError(
                f"{one} and {other} spell one of their {section} alike, {vars(first)['name']}, and mean files in two "
                "folders: records would share a name. Give each plan an --out, or absolute paths."
            )
    return [each for _, each in found]


def _read(path: Path, tables: Any, section: str, kind: type[N]) -> list[N]:
    if isinstance(tables, str) or (isinstance(tables, list) and tables and isinstance(tables[0], str)):
        raise SettingsError(f"{path} names other plans itself in place of [[{section}]] tables. Name those.")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"{path}: expected at least one [[{section}]] table, or plans that have some, by name.")
    folder = str(path.parent.absolute())  # workers have folders of their own
    try:
        found = [replace(build(kind, table, f"[[{section}]]"), folder=folder) for table in tables]
        for table, (key, other) in product(tables, kind.needs.items()):
            if key in table and other not in table:
                raise SettingsError(f"stream '{table['name']}': {key} goes with {other} only. Leave it out.")
        return [replace(spec.filled(), code=spec.digest()) for spec in found]
    except AllWeatherError as error:
        raise SettingsError(f"{path}: {error}") from error


def _spelt(spec: Named) -> dict[str, Any]:
    return {key: value for key, value in vars(spec).items() if key not in ("folder", "code", "seeds", "orders")}


def build(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """A settings object from a TOML table; a single value stands for a list of one."""
    known = {entry.name: entry for entry in fields(kind) if "own" not in entry.metadata}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        check_known(f"key of {where}", key, known)
        values[key] = _typed(value, known[key].type, f"{where} {key}")
    missing = [
        name
        for name, entry in known.items()
        if name not in values and entry.default is MISSING and entry.default_factory is MISSING
    ]
    if missing:
        raise SettingsError(f"{where}: {', '.join(missing)} is missing.")
    return kind(**values)


def _typed(value: Any, expected: Any, where: str) -> Any:
    """A TOML value as a key's type; a table stays as it is, its fields are the method's or the network's to check."""
    check_values(where, value)
    if expected == FIELDS:
        if not isinstance(value, dict):
            raise SettingsError(f"{where}: expected a table, got {value!r}.")
        return value
    several = get_origin(expected) is tuple
    if several and value == []:
        raise SettingsError(f"{where}: expected at least one value, got none.")
    return parse_value(where, [value] if several and not isinstance(value, list) else value, expected)
