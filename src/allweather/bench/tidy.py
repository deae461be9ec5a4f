"""`python -m allweather.bench.tidy FOLDER…`: records written anew in today's spelling of JSON, no value changed."""

import sys
from collections.abc import Sequence
from pathlib import Path

from allweather.bench.execute import read_record
from allweather.data.images import write_json
from allweather.errors import InputError


def tidy(folders: Sequence[Path]) -> int:
    """Spells every record of the folders as `bench` would; returns how many there are.

    Raises:
        AllWeatherError: for a folder without records, or a file that is none.
    """
    paths = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    if not paths:
        raise InputError(f"no record (.json) in {', '.join(map(str, folders)) or 'nothing: name folders'}.")
    for path in paths:
        write_json(path, read_record(path))
    return len(paths)


if __name__ == "__main__":
    sys.stdout.write(f"{tidy([Path(argument) for argument in sys.argv[1:]])} records written anew\n")
