"""The record of `benchmarks.guard`: a line for each run, the frames as lists of numbers; .gz is compressed."""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(record: Mapping[str, Any]) -> list[Row]:
    """The rows with every frame as a mapping, also where the record spells them so."""
    if "columns" not in record:
        return list(record["rows"])
    columns = [name.split(".") for name in record["columns"]]
    return [{**row, "frames": [_frame(columns, values) for values in row["frames"]]} for row in record["rows"]]


def write_rows(rows: Sequence[Row], versions: Mapping[str, str], out: Path) -> None:
    """Writes the record.

    Raises:
        ValueError: when a frame holds something else than the first one does.
    """
    columns = [name for name, _ in _flat(rows[0]["frames"][0])]
    lines = [json.dumps({**row, "frames": [_values(columns, frame) for frame in row["frames"]]}, separators=(",", ":"))
             for row in rows]  # fmt: skip
    head = json.dumps({"benchmark": "guard", "versions": versions, "columns": columns}, separators=(",", ":"))
    text = head.removesuffix("}") + ',"rows":[\n' + ",\n".join(lines) + "\n]}\n"
    out.write_bytes(gzip.compress(text.encode(), mtime=0) if out.suffix == ".gz" else text.encode())


def _flat(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every mapping's leaf with its place, such as signs.step.drift; lists are leaves."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, (*place, key))
    else:
        yield ".".join(place), value


def _values(columns: Sequence[str], frame: Mapping[str, Any]) -> list[Any]:
    found = dict(_flat(frame))
    if list(found) != list(columns):
        raise ValueError(f"{frame['name']}: expected {', '.join(columns)}, got {', '.join(found)}.")
    return list(found.values())


def _frame(columns: Sequence[Sequence[str]], values: Sequence[Any]) -> dict[str, Any]:
    frame: dict[str, Any] = {}
    for (*place, last), value in zip(columns, values, strict=True):
        inside = frame
        for key in place:
            inside = inside.setdefault(key, {})
        inside[last] = value
    return frame
