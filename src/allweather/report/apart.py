"""What people call settings of which several may have one name: the name, and what tells them apart."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Spec = Mapping[str, Any]
SHORTENED = 8  # digits of a digest that are shown


def names_of(specs: Sequence[Spec], named: Callable[[Spec], str]) -> list[str]:
    """A name for each spec, the same for equal ones only.

    Args:
        specs: streams or networks as records hold them.
        named: their name as long as no other spec has it too.
    """
    alike: dict[str, dict[str, Spec]] = {}
    for spec in specs:
        alike.setdefault(named(spec), {})[_spelt(spec)] = spec
    made: dict[str, str] = {}
    for name, same in alike.items():
        made |= _names(name, same)
    return [made[_spelt(spec)] for spec in specs]


def scored_at(scoring: str) -> str:
    return "native size" if scoring == "native" else f"{scoring.replace('x', '×')} (the authors' way)"


def _names(name: str, same: Mapping[str, Spec]) -> dict[str, str]:
    """The name with what differs, in short where that is enough; by the whole spec."""
    differing = [
        key
        for key in dict.fromkeys(key for spec in same.values() for key in spec)
        if len({_spelt(spec.get(key)) for spec in same.values()}) > 1
    ]
    for show in (_short, _whole):
        made = {whole: ", ".join([name, *(show(key, spec) for key in differing)]) for whole, spec in same.items()}
        if len(set(made.values())) == len(made):
            break
    return made


def _short(key: str, spec: Spec) -> str:
    """A checkpoint by its file's stem, without the word; a digest by its first digits."""
    value = spec.get(key)
    if key == "weights" and value:
        return Path(str(value)).stem
    return f"{key} {value[:SHORTENED]}" if key == "code" and value else _whole(key, spec)


def _whole(key: str, spec: Spec) -> str:
    value = spec.get(key)
    told = value if isinstance(value, str) else _spelt(value)
    return f"{key} {'none' if value in (None, '') else told}"


def _spelt(content: Any) -> str:
    return json.dumps(content, sort_keys=True)
