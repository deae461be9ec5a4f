"""Where a plan's paths lie: sought from its folder, with variables such as ${ROOT} and `~` filled in."""

import os
import re
from pathlib import Path

from allweather.errors import SettingsError

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def resolve(text: str, folder: Path | str = "") -> Path:
    """The path with variables like ${ROOT} filled in from the environment, and `~` at its beginning.

    Args:
        folder: the plan's, from which a path is sought; one that begins with a variable is as the variable has it.

    Raises:
        SettingsError: when one of them is not set.
    """
    for name in unset_in(text):
        raise SettingsError(f"{text}: the variable {name} is not set. Set it to the folder that holds the data.")
    filled = os.path.expanduser(_VARIABLE.sub(lambda match: os.environ[match[1]], text))
    return Path(filled) if _VARIABLE.match(text) else Path(folder) / filled


def unset_in(text: str) -> list[str]:
    """Names of the variables in a path that are not set."""
    return [name for name in dict.fromkeys(_VARIABLE.findall(text)) if name not in os.environ]
