"""The paths of a plan: the method that they belong to, variables that are not set, and what is not there."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from allweather import methods
from allweather.data.datasets import DATASETS
from allweather.errors import AllWeatherError
from allweather.methods import Method
from allweather.methods.settings import each_path
from allweather.models.catalogue import find_entry
from allweather.models.segmenter import Segmenter
from allweather.runs.places import resolve, unset_in
from allweather.runs.plan import PIECE, MethodSpec, ModelSpec, PlannedRun, StreamSpec

_SHOWN = 4  # things that a variable has to hold, in its message


@dataclass(frozen=True)
class Unset:
    """A variable that is not set.

    Attributes:
        name: without braces.
        holds: what runs seek in its folder, and who offers it.
        runs: how many need it.
    """

    name: str
    holds: tuple[str, ...]
    runs: int

    def __str__(self) -> str:
        shown = "; ".join(self.holds[:_SHOWN])
        more = f"; and {len(self.holds) - _SHOWN} more" if len(self.holds) > _SHOWN else ""
        return f"{self.name}, for {self.runs} run{'s' if self.runs > 1 else ''}: {shown}{more}"


@dataclass(frozen=True)
class Absent:
    """A file or folder that runs read and that is not there.

    Attributes:
        path: where it was sought.
        runs: how many read it.
        here: whether it is there from the current folder, where plans do not seek.
    """

    path: Path
    runs: int
    here: bool

    def __str__(self) -> str:
        here = "; it is there from the current folder" if self.here else ""
        return f"{self.path}, for {self.runs} run{'s' if self.runs > 1 else ''}{here}"


def make_method(spec: MethodSpec, model: Segmenter) -> Method:
    """A plan's method as it suits the network; paths among its fields are sought as those of networks are.

    Raises:
        AllWeatherError: for an unknown method, preset or field, or a value its type does not allow.
    """
    found = {field: each_path(value, lambda text: resolve(text, spec.folder)) for field, value in spec.named().items()}
    return methods.make(spec.located(spec.name), spec.preset, {**spec.fields, **found}, model=model)


def needed(run: PlannedRun) -> set[str]:
    """Names of the variables that a run needs and that are not set."""
    return {name for text, _, _ in _uses(run) for name in unset_in(text)}


def unset_variables(runs: tuple[PlannedRun, ...]) -> list[Unset]:
    """The variables that runs need and that are not set, each once, with all that it has to hold."""
    holds: dict[str, dict[str, None]] = {}
    counts: dict[str, int] = {}
    for run in runs:
        for text, _, what in _uses(run):
            for name in unset_in(text):
                rest = text.replace(f"${{{name}}}", "").lstrip("/")
                holds.setdefault(name, {})[" ".join(filter(None, (rest, what)))] = None
        for name in needed(run):
            counts[name] = counts.get(name, 0) + 1
    return [Unset(name, tuple(found), counts[name]) for name, found in holds.items()]


def absent_paths(runs: Iterable[PlannedRun]) -> list[Absent]:
    """What runs read and is not there, each once; where variables are not set, nothing can be said."""
    found: dict[Path, bool] = {}
    counts: Counter[Path] = Counter()
    for run in runs:
        sought = {resolve(text, folder): text for text, folder, _ in _uses(run) if not unset_in(text)}
        absent = {path: text for path, text in sought.items() if not os.path.exists(path)}
        found |= {path: os.path.exists(resolve(text)) for path, text in absent.items()}
        counts.update(list(absent))
    return [Absent(path, counts[path], here) for path, here in found.items()]


def _uses(run: PlannedRun) -> Iterator[tuple[str, str, str]]:
    """Each path of a run that may hold variables, the plan's folder, and what lies there."""
    model, stream = run.model, run.stream
    if model.weights is not None:
        yield model.weights, model.folder, _checkpoint(model)
    if stream.root is not None:
        yield stream.root, stream.folder, _root(stream)
    for field, named in run.method.paths():
        yield named, run.method.folder, f"({run.method.name}'s {field})"
    for path in (stream.images, stream.labels):
        if path is not None:
            for each in dict.fromkeys(path.replace(PIECE, piece) for piece in stream.sequence or ("",)):
                yield each, stream.folder, _folder(stream)


def _checkpoint(model: ModelSpec) -> str:
    try:
        publisher = find_entry(model.name).publisher
    except AllWeatherError:  # a library's network, or one of the user's own
        publisher = None
    return f"({model.name}'s checkpoint{f', offered at {publisher}' if publisher else ''})"


def _root(stream: StreamSpec) -> str:
    name = (stream.sequence or (stream.name,))[0].partition(":")[0]
    found = DATASETS.get(name)
    return f"{found.title} as {found.publisher} offers it" if found else f"the root of {stream.name}"


def _folder(stream: StreamSpec) -> str:
    names = sorted((name for name in DATASETS if stream.name.startswith(name)), key=len)
    return f"({DATASETS[names[-1]].title}, offered at {DATASETS[names[-1]].publisher})" if names else ""
