"""The variables of a plan, such as ${ROOT}: filled in from the environment, and what each has to hold."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from allweather.data.datasets import DATASETS
from allweather.errors import AllWeatherError, SettingsError
from allweather.models.catalogue import find_entry
from allweather.runs.plan import ModelSpec, PlannedRun, StreamSpec

_VARIABLE = re.compile(r"\$\{(\w+)\}")
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


def resolve(text: str) -> Path:
    """The path with variables like ${ROOT} filled in from the environment.

    Raises:
        SettingsError: when one of them is not set.
    """
    for name in _missing(text):
        raise SettingsError(f"{text}: the variable {name} is not set. Set it to the folder that holds the data.")
    return Path(_VARIABLE.sub(lambda match: os.environ[match[1]], text))


def needed(run: PlannedRun) -> set[str]:
    """Names of the variables that a run needs and that are not set."""
    return {name for text, _ in _uses(run) for name in _missing(text)}


def unset_variables(runs: tuple[PlannedRun, ...]) -> list[Unset]:
    """The variables that runs need and that are not set, each once, with all that it has to hold."""
    holds: dict[str, dict[str, None]] = {}
    counts: dict[str, int] = {}
    for run in runs:
        for text, what in _uses(run):
            for name in _missing(text):
                rest = text.replace(f"${{{name}}}", "").lstrip("/")
                holds.setdefault(name, {})[" ".join(filter(None, (rest, what)))] = None
        for name in needed(run):
            counts[name] = counts.get(name, 0) + 1
    return [Unset(name, tuple(found), counts[name]) for name, found in holds.items()]


def _missing(text: str) -> list[str]:
    return [name for name in dict.fromkeys(_VARIABLE.findall(text)) if name not in os.environ]


def _uses(run: PlannedRun) -> Iterator[tuple[str, str]]:
    """Each path of a run that may hold variables, and what lies there."""
    if run.model.weights is not None:
        yield run.model.weights, _checkpoint(run.model)
    if run.stream.root is not None:
        yield run.stream.root, _root(run.stream)
    for path in (run.stream.images, run.stream.labels):
        if path is not None:
            yield path, _folder(run.stream)


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
