"""TOML that users write: plans and class sets, or one line that says why a file is none."""

import tomllib
from pathlib import Path
from typing import Any

from allweather.errors import InputError, first_line
from allweather.values import check_depth


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """A file's tables and values.

    Args:
        what: what the file should be, for the message.

    Raises:
        InputError: when it cannot be read.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        check_depth(content)
        repr(content)  # fails for a hexadecimal number of more digits than any message could have
    except (OSError, ValueError, RecursionError, InputError) as error:
        raise InputError(f"cannot read the {what} {path}: {first_line(error)}.") from error
    return content
