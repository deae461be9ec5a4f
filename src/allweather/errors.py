"""The one error a user's mistake raises, and the wording for names that do not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


class AllWeatherError(Exception):
    """A mistake the caller can mend; the message says what was expected, what came, and what to do."""


def unknown(kind: str, name: str, known: Iterable[str]) -> AllWeatherError:
    """The error for a `name` that is not among the `known` names of a `kind`, nearest spelling first."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return AllWeatherError(f"unknown {kind} '{name}'.{hint} Known: {', '.join(names) or 'none'}.")
