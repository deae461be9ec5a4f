"""Files of JSON lines: whole lines survive whatever happens, cut ones are dropped, damaged ones named."""

import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from allweather import AllWeatherError, InputError
from allweather.data.json_lines import JsonLines, read_json_lines

ROWS = [{"name": "ü\n", "losses": [0.5]}, {"name": "caf\udce9"}]


def add(path: Path, row: dict[str, Any]):
    with JsonLines(path) as lines:
        lines.append(row)


def test_lines_come_back_as_they_were(tmp_path: Path):
    lines = JsonLines(tmp_path / "deep/a.jsonl")
    for row in ROWS:
        lines.append(row)
        assert read_json_lines(lines.path)[-1] == row  # no buffer holds it back
    lines.close()
    assert read_json_lines(lines.path) == ROWS
    assert read_json_lines(tmp_path / "absent.jsonl") == []
    with pytest.raises(ValueError, match="not JSON compliant"):
        add(lines.path, {"a": float("nan")})
    assert read_json_lines(lines.path) == ROWS


@pytest.mark.parametrize("cut", ['{"a": 1', "x" * 200_000, ""], ids=["half", "long", "none"])
@pytest.mark.parametrize("before", ["", '{"a": 0}\n'], ids=["alone", "after one"])
def test_a_cut_last_line_is_dropped(tmp_path: Path, before: str, cut: str):
    path = tmp_path / "a.jsonl"
    path.write_text(before + cut)
    whole = [{"a": 0}] if before else []
    assert read_json_lines(path) == whole
    add(path, {"a": 2})
    assert read_json_lines(path) == [*whole, {"a": 2}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nothing", "Expecting value"),
        ("[1]", "got \\[1\\]"),
        ('{"a": NaN}', "NaN is no number"),
        ("[" * 100_000, "recursion"),
        ("", "Expecting value"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, said: str):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": 0}}\n{line}\n{{"a": 1}}\n')
    with pytest.raises(InputError, match=rf"a\.jsonl, line 2: expected a JSON object.*{said}"):
        read_json_lines(path)


FILL = """
import sys
from pathlib import Path
from allweather.data.json_lines import JsonLines
from allweather.errors import AllWeatherError
lines = JsonLines(Path(sys.argv[1]))
try:
    while True:
        lines.append({"a": "x" * 70})
except AllWeatherError as error:
    print(error)
"""


def test_a_disk_that_becomes_full_keeps_whole_lines(tmp_path: Path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    done = subprocess.run(
        [sys.executable, "-c", FILL, tmp_path / "a.jsonl"], capture_output=True, text=True, preexec_fn=small_files
    )
    assert "cannot write" in done.stdout, done.stderr
    assert read_json_lines(tmp_path / "a.jsonl") == [{"a": "x" * 70}] * 3
    assert (tmp_path / "a.jsonl").stat().st_size == 240


def test_a_folder_in_its_place_is_said(tmp_path: Path):
    with pytest.raises(AllWeatherError, match="cannot write"):
        JsonLines(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_json_lines(tmp_path)
