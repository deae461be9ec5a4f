"""The records in a folder, each run once."""

import json
from pathlib import Path

from allweather.errors import InputError
from allweather.runs.record_file import read_record
from allweather.runs.summary import Record


def load_records(folder: Path | str) -> list[Record]:
    """The records in a folder of `allweather bench`, by file name.

    Raises:
        InputError: when there is none, a file is damaged or no record, or two are of one run.
    """
    records: dict[str, tuple[Path, Record]] = {}
    for path in record_files(folder):
        record = read_record(path)
        earlier, _ = records.setdefault(json.dumps(record["run"], sort_keys=True), (path, record))
        if earlier is not path:
            raise InputError(f"{earlier} and {path} are records of one run: take one away.")
    return [record for _, record in records.values()]


def record_files(folder: Path | str) -> list[Path]:
    """The files that `load_records` reads.

    Raises:
        InputError: when there is none.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not paths:
        raise InputError(f"no record (.json) in {folder}: expected the folder that `allweather bench --out` wrote.")
    return paths
