"""The errors a user can mend, and the wording for names that do not exist and libraries that are missing.

AllWeatherError                 any of those below, and an output that cannot be written
├── InputError                  pictures, labels, tensors, datasets, plans, records: missing, damaged, of another shape
│   ├── ImageError              one picture or label file that cannot be read; the others of its stream can
│   └── NotFiniteError          pixels, features or logits with NaN or infinite values
├── CheckpointError             weights or a saved session: missing, damaged, refused, or of another network
├── NetworkError                a network that cannot be built, or does not give what adaptation needs
├── SettingsError               an unknown name, or a value that a setting does not allow
└── MissingLibraryError         an optional library that is not installed
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

COLORS = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal


class AllWeatherError(Exception):
    """A mistake the caller can mend; the message says what was expected, what came, and what to do."""


class InputError(AllWeatherError):
    """Data that cannot be used: a picture, label, tensor, dataset, plan or record."""


class ImageError(InputError):
    """One image, video or label file that cannot be read; the others of its stream can."""


class NotFiniteError(InputError):
    """Pixels, features or logits that hold NaN or infinite values."""


class CheckpointError(AllWeatherError):
    """A file of weights, or a saved session, that is missing, damaged, refused, or belongs to another network."""


class NetworkError(AllWeatherError):
    """A network that cannot be built, or whose output or layers are not what adaptation needs."""


class SettingsError(AllWeatherError):
    """An unknown name, or a value that a setting does not allow."""


class MissingLibraryError(AllWeatherError):
    """An optional library that is not installed; the message has the command that installs it."""


class RandomWeightsWarning(UserWarning):
    """A network without weights: none were given, and none come with it."""

    def __init__(self, network: str) -> None:
        super().__init__(f"{network} is randomly initialised: no weights were given")


class NcutAccuracyWarning(UserWarning):
    """A normalized cut whose operator is further from its definition than asked for."""


def first_line(error: BaseException) -> str:
    """The first line of a library's message, at most 160 characters, without its last stop and a terminal's colors."""
    line = (COLORS.sub("", str(error)).strip().splitlines() or [type(error).__name__])[0]
    return line[:160].rstrip(".: ") + ("…" if len(line) > 160 else "")


def optional(library: str, extra: str, called: str = "") -> ModuleType:
    """An optional library, imported; `called` is what people call it.

    Raises:
        MissingLibraryError: when it is not installed; the message names the extra.
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise MissingLibraryError(
            f"{called or library} is not importable ({error}). Install it with: pip install 'allweather[{extra}]'."
        ) from error


def unknown(kind: str, name: object, known: Iterable[str]) -> SettingsError:
    """The error for a `name` that is not among the `known` names of a `kind`, nearest spelling first."""
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return SettingsError(f"unknown {kind} '{name}'.{hint} Known: {', '.join(names) or 'none'}.")


def check_known(kind: str, name: object, known: Iterable[str]) -> None:
    """Refuses a `name` that is not among the `known` names of a `kind`.

    Raises:
        SettingsError: as `unknown` words it.
    """
    names = tuple(known)
    if not isinstance(name, str) or name not in names:
        raise unknown(kind, name, names)
