"""The committed records, read, and how figures of theirs are spelt in the pages."""

import argparse
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from allweather.runs.record_file import checked_record
from allweather.runs.summary import Record
from benchmarks.packed import read_kept

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
RESULTS = RECORDS / "plans"


@cache
def plan_records(plan: str) -> list[Record]:
    """Records of a plan, by file name; none where it was never run."""
    return list(plan_files(plan).values())


@cache
def plan_files(plan: str) -> dict[str, Record]:
    """Records of a plan with their files' names."""
    return {name: checked_record(record, RESULTS / plan / name) for name, record in read_kept(RESULTS / plan).items()}


def benchmark_record(name: str) -> dict[str, Any] | None:
    """The record of a script in this folder; None where it was never run."""
    path = RECORDS / name
    return load(path) if path.exists() else None


def load(path: Path) -> dict[str, Any]:
    """A file's JSON, of a compressed one too."""
    content = path.read_bytes()
    loaded: dict[str, Any] = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    return loaded


def keep(record: str | Mapping[str, Any] | Sequence[Any], path: Path) -> None:
    """Writes a record, ready text or what JSON is made of; a .gz compressed."""
    text = record if isinstance(record, str) else json.dumps(record, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = f"{text}\n".encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def command(text: str | None) -> argparse.ArgumentParser:
    """A script's command line, `text` its help: --json names the file for what it hands out."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="a file to write beside standard output; a .gz compressed")
    return parser


def hand_out(record: str | Mapping[str, Any] | Sequence[Any], path: Path | None) -> None:
    """Prints a record, ready text or what JSON is made of, and writes it where a file is named; a .gz compressed."""
    print(record if isinstance(record, str) else json.dumps(record, indent=1))
    if path is not None:
        keep(record, path)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a cell with ` | ` in it is several."""
    head = f"| {' | '.join(heads)} |"
    return "\n".join([head, "|---" * (head.count(" | ") + 1) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def plain(value: Any) -> str:
    """A setting as people write it."""
    if isinstance(value, tuple | list):
        return "(" + ", ".join(plain(item) for item in value) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def pair(value: float | None, source: float | None, mark: str = "") -> tuple[str, str]:
    """A figure, marked, and its change to the source."""
    if value is None or source is None:
        return "–", "–"
    return f"{value:.2f}{mark}", f"{value - source:+.2f}"
