"""Full records of plans as the small summaries that this repository keeps: `python -m benchmarks.summarize RUNS OUT`.

RUNS holds a folder of records for each plan, as `make results` writes them; OUT gets the same folders. Every summary
holds its paired difference to the source on the same frames; those of MALL hold that to every other run on them, of
whichever plan.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from allweather.data.images import encode_json
from allweather.runs.record_file import read_record
from allweather.runs.summary import summarize
from allweather.writing import write_bytes
from benchmarks.committed import spell_lines

Record = Mapping[str, Any]


def main(runs: Path, out: Path) -> None:
    """Writes a summary of every record."""
    records = {path: read_record(path) for path in sorted(runs.glob("*/*.json"))}
    if not records:
        raise SystemExit(f"no record (.json) below {runs}: expected one folder for each plan.")
    for path, record in records.items():
        others = [other for other in records.values() if same_frames(record, other) and compared(record, other)]
        summary = summarize(record, others)
        write_bytes(out / path.parent.name / path.name, encode_json(spell_lines(summary)))
    print(f"{len(records)} summaries in {out}")


def same_frames(first: Record, second: Record) -> bool:
    """Whether two runs are of one network on one stream, so that a paired difference means something."""
    return all(first["run"][key] == second["run"][key] for key in ("model", "stream", "scoring"))


def compared(record: Record, other: Record) -> bool:
    """Whether a table may show the record's difference to the other."""
    methods: Sequence[str] = [side["run"]["method"]["name"] for side in (record, other)]
    return methods[1] == "source" or methods[0].startswith("mall-")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
