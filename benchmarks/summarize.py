"""Full records of plans as the small summaries that this repository keeps: `python -m benchmarks.summarize RUNS OUT`.

RUNS holds a folder of records for each plan, as `make results` writes them; OUT gets a file for each folder, in which
`benchmarks.packed` replaces the summaries of these runs. Every summary holds its paired difference to the source on the
same frames, those of MALL's defaults, whatever their views, that to every other method's run on them, of whichever
plan, and the first run of each method says which images adaptation hurt.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from allweather.report.collect import group_records, source_of
from allweather.report.harm import spell_harm
from allweather.runs.record_file import read_record
from allweather.runs.summary import key_of, summarize
from benchmarks.packed import write_kept

Record = Mapping[str, Any]


def main(runs: Path, out: Path) -> None:
    """Writes a summary of every record."""
    records = {path: read_record(path) for path in sorted(runs.glob("*/*.json"))}
    if not records:
        raise SystemExit(f"no record (.json) below {runs}: expected one folder for each plan.")
    harm = {path: spelt for folder in sorted(runs.iterdir()) for path, spelt in _harm(folder, records).items()}
    summaries: dict[str, dict[str, Record]] = {}
    for path, record in records.items():
        others = [other for other in records.values() if same_frames(record, other) and compared(record, other)]
        summaries.setdefault(path.parent.name, {})[path.name] = summarize(record, others, harm.get(path))
    for plan, found in summaries.items():
        write_kept(out / plan, found)
    print(f"{len(records)} summaries in {out}")


def _harm(folder: Path, records: Mapping[Path, Record]) -> dict[Path, Mapping[str, Any]]:
    """Where adaptation hurt, for the first run of each method in the folder that reports compare with the source."""
    inside = {key_of(record): path for path, record in records.items() if path.parent == folder}
    groups = group_records(records[path] for path in inside.values())
    found = {}
    for group in groups:
        source = source_of(group, groups)
        if source is None or group.is_source or not group.on_its_own:
            continue
        spelt = spell_harm(group, source)
        if spelt is not None:
            found[inside[key_of(group.records[0])]] = spelt
    return found


def same_frames(first: Record, second: Record) -> bool:
    """Whether two runs are of one network on one stream, so that a paired difference means something."""
    return all(first["run"][key] == second["run"][key] for key in ("model", "stream", "scoring"))


def compared(record: Record, other: Record) -> bool:
    """Whether a table may show the record's difference to the other."""
    method, rival = record["run"]["method"], other["run"]["method"]["name"]
    changed = method["preset"] != "recommended" or method["fields"].keys() - {"views"} or method.get("guard")
    ours = method["name"].startswith("mall-") and not changed
    return rival == "source" or (ours and not rival.startswith("mall-"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
