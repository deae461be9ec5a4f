"""Summaries of a plan in one file, a run a line that holds what tells it from an earlier one.

`python -m benchmarks.packed pack FOLDER…` replaces folders of summaries by such files beside them;
`python -m benchmarks.packed unpack FILE FOLDER` writes them as `allweather report` and `compare` read them. A file of
more than ten kilobytes is kept compressed.
"""

import argparse
import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allweather.data.images import encode_json
from allweather.scoring.confusion import ConfusionMatrix
from allweather.writing import write_bytes

Record = Mapping[str, Any]
FILE, LIKE, GONE, DERIVED = "file", "like", "-", "derived"  # keys of a line that no record has
SUFFIX, COMPRESSED = ".jsonl", ".jsonl.gz"
LARGE = 10_000  # bytes


def pack(records: Mapping[str, Record]) -> str:
    """The records, by file name, as lines.

    A line's `like` names the earlier line whose record is meant wherever it says nothing; `-` are keys that only that
    one has. Figures that follow from the confusion matrix are named in `figures.derived`, not spelt.

    Raises:
        ValueError: when a record uses one of these keys itself.
    """
    lines: list[str] = []
    earlier: dict[str, Record] = {}
    for name, record in records.items():
        short = _without_derived(record)
        if {FILE, LIKE} & short.keys() or f'"{GONE}":' in _spell(record) or DERIVED in record["figures"]:
            raise ValueError(f"{name} uses a key that packing keeps for itself: {FILE}, {LIKE}, {GONE} or {DERIVED}.")
        lines.append(min(_told(name, short, earlier), key=len))
        earlier[name] = short
    return "\n".join(lines) + "\n"


def unpack(text: str) -> dict[str, dict[str, Any]]:
    """The records that `pack` was given."""
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        told = json.loads(line)
        name, like = told.pop(FILE), told.pop(LIKE, None)
        found[name] = told if like is None else _applied(found[like], told)
    return {name: _with_derived(record) for name, record in found.items()}


def read_kept(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of a plan by file name: those packed beside the folder, and its own, which are newer."""
    found = {}
    for packed in (folder.with_suffix(suffix) for suffix in (SUFFIX, COMPRESSED)):
        found |= unpack(_text(packed)) if packed.exists() else {}
    return dict(
        sorted({**found, **{path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}}.items())
    )


def write_kept(folder: Path, records: Mapping[str, Record]) -> None:
    """Packs the records beside the folder, and with them all that are there already."""
    together = dict(sorted({**read_kept(folder), **records}.items()))
    content = encode_json(pack(together).rstrip("\n"))
    large = len(content) > LARGE
    kept, other = (folder.with_suffix(suffix) for suffix in ((COMPRESSED, SUFFIX) if large else (SUFFIX, COMPRESSED)))
    write_bytes(kept, gzip.compress(content, mtime=0) if large else content)
    other.unlink(missing_ok=True)
    if folder.is_dir():
        shutil.rmtree(folder)


def spell_lines(content: Mapping[str, Any]) -> str:
    """JSON with one key of the record a line: short, and kind to diffs."""
    rows = [f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in content.items()]
    return "{\n" + ",\n".join(rows) + "\n}"


def _text(packed: Path) -> str:
    content = packed.read_bytes()
    return (gzip.decompress(content) if packed.suffix == ".gz" else content).decode()


def _told(name: str, record: Record, earlier: Mapping[str, Record]) -> list[str]:
    """The ways to write a line: alone, and like each of the earlier records."""
    alone = _spell({FILE: name, **record})
    return [alone, *(_spell({FILE: name, LIKE: key, **_changed(base, record)}) for key, base in earlier.items())]


def _changed(base: Record, record: Record) -> dict[str, Any]:
    """What `_applied` needs to make the record of the base, its keys in their order."""
    kept = _leading(base, record)
    changed: dict[str, Any] = {}
    for key, value in record.items():
        if key not in kept:
            changed[key] = value
        elif isinstance(value, dict) and isinstance(base[key], dict):
            changed |= {key: inner} if (inner := _changed(base[key], value)) else {}
        elif _spell(base[key]) != _spell(value):  # 1, 1.0 and true are three
            changed[key] = value
    gone = [key for key in base if key not in kept]
    return changed | ({GONE: gone} if gone else {})


def _leading(base: Record, record: Record) -> set[str]:
    """The record's first keys, as many as the base has in the same order."""
    kept, rest = set(), iter(base)
    for key in record:
        if key not in rest:  # which also steps behind the key
            break
        kept.add(key)
    return kept


def _applied(base: Record, changed: Record) -> dict[str, Any]:
    found = {key: value for key, value in base.items() if key not in changed.get(GONE, ())}
    for key, value in changed.items():
        if key != GONE:
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = _applied(found[key], value) if both else value
    return found


def _without_derived(record: Record) -> dict[str, Any]:
    """The record with the names of classes as its `IoU`, where its figures are those of its confusion matrix."""
    figures = record["figures"]
    names = list(figures["IoU"])
    derived = _summary(names, record) if "confusion" in record else {}
    same = [key for key in figures if key in derived and _spell(figures[key]) == _spell(derived[key])]
    if "IoU" not in same:
        return dict(record)
    kept = {key: value for key, value in figures.items() if key not in same}
    return {**record, "figures": {"IoU": names, DERIVED: same, **kept}}


def _with_derived(record: dict[str, Any]) -> dict[str, Any]:
    figures = dict(record["figures"])
    if DERIVED not in figures:
        return record
    derived = _summary(figures.pop("IoU"), record)
    return {**record, "figures": {key: derived[key] for key in figures.pop(DERIVED)} | figures}


def _summary(names: list[str], record: Record) -> dict[str, Any]:
    return ConfusionMatrix(len(names), np.array(record["confusion"])).summary(names)


def _spell(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("pack", "unpack"))
    parser.add_argument("paths", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    if options.verb == "pack":
        for folder in options.paths:
            write_kept(folder, {})
        return
    file, folder = options.paths
    for name, record in unpack(_text(file)).items():
        write_bytes(folder / name, encode_json(spell_lines(record)))


if __name__ == "__main__":
    main()
