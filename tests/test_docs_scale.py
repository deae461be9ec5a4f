"""The page on many streams: its snippets run as they stand, and the tables of its measurements are of the records."""

import re
from pathlib import Path

import pytest
from pages import run_page

from benchmarks import tables
from benchmarks.committed import benchmark_record

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "many-streams.md"


@pytest.mark.usefixtures("warm_workers")
def test_the_page_runs_from_first_to_last_line(here: Path):
    done = run_page(PAGE, here)
    assert [each.returncode for each in done] == [0, 0, 0, 0], [each.stderr for each in done]
    assert len(list((here / "all" / "labels").rglob("*.png"))) == 15
    assert "50.0%" in done[2].stderr and "15 of 15 images of 3 streams" in done[1].stderr


@pytest.mark.parametrize("name", ["scale", "fleet"])
def test_tables_are_those_of_the_records(name: str):
    page = (ROOT / "docs" / "scale.md").read_text()
    text = next(match[0] for match in tables.MARK.finditer(page) if match[2] == name)
    assert tables.TABLES[name]() in text and "not measured" not in text


def test_the_record_grows_linearly():
    """Bytes of the record and the coordinator's time for each frame do not grow with the number of frames."""
    found = benchmark_record("performance/scale.json.gz")
    sizes = [row["record_bytes_per_frame"] for row in found["simulated"]]
    assert max(sizes) < 1.05 * min(sizes) and len({row["frames"] for row in found["simulated"]}) >= 3
    assert re.search("stub work", (ROOT / "docs" / "scale.md").read_text())
