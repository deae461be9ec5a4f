"""The pages: generated parts are those of the records, and what was tuned is said once."""

import re
from pathlib import Path

import pytest
from records import record

from allweather.session.guard import KINDS
from benchmarks import plan_tables, script_tables, tables

ROOT = Path(__file__).parents[1]


def parts(page: str) -> dict[str, str]:
    """Name → text of each generated part."""
    found = tables.MARK.finditer((ROOT / page).read_text())
    return {match[2]: match[0].split("-->\n", 1)[1].removesuffix("\n<!-- end -->") for match in found}


def test_what_was_tuned_is_said_once():
    text, page = tables.TABLES["tuned"](), ROOT / "docs/results.md"
    assert parts("docs/results.md")["tuned"] == text and "among 6," in text and "`eata`" in text
    by_hand = tables.MARK.sub("", page.read_text())
    assert not re.search(r"\btuned\b", by_hand), "what was tuned is said by the generated part alone"


def test_the_main_table_counts_every_kind():
    text = parts("docs/results.md")["camvid"]
    assert text == tables.TABLES["camvid"]()
    rows = {cells[0]: cells for line in text.splitlines() if (cells := line.strip("| ").split(" | "))}
    assert rows["mall-sample (paper, reconstructed)"][1:4] == ["49.99 ‡", "-0.11", "92 / 0 / 0 / 0 / 0"]
    assert rows["mall-domain (paper, reconstructed)"][3] == "3.7 (2–5) / 4.3 (3–6) / 4 / 94.3 (89–100) / 0"
    assert "this measures it, not the method" in text


@pytest.mark.parametrize("name", ["hostile", "layernorm", "demo"])
def test_tables_of_scripts_are_those_of_their_records(name: str):
    assert parts("docs/results.md")[name] == tables.TABLES[name]()


def test_tables_of_rounds_are_over_the_truth_where_every_record_knows_it_and_say_so(monkeypatch: pytest.MonkeyPatch):
    def shown(*last: dict[str, float]) -> str:
        pieces = [{"mIoU": 40.0, "mIoU_truth": 50.0}, *last]
        parts = {f"{number:02}/fog": piece for number, piece in enumerate(pieces, 1)}
        monkeypatch.setattr(
            plan_tables, "plan_records", lambda plan: [record("tent", 0.5, parts=parts) | {"seconds": 2.0}]
        )
        return plan_tables.weather_rounds()

    now = shown({"mIoU": 41.0, "mIoU_truth": 52.5})
    assert "| tent | 50.00 | 52.50 | +2.50 |" in now and "over the classes in each piece's truth." in now
    former = shown({"mIoU": 41.0})
    assert "| tent | 40.00 | 41.00 | +1.00 |" in former and "predicted in each piece (official)." in former


def test_hostile_records_of_either_version_show_every_kind():
    def shown(decisions: dict[str, int]) -> str:
        rows = {key: {"mIoU": 1.0, "decisions": decisions} for key in ("guarded", "unguarded")}
        return script_tables.hostile_tables(
            {"rows": [{"case": "c", "method": "m", "source": 1.0, **rows}], "setting": "s"}
        )

    now = dict(zip(KINDS, (9, 2, 3, 4, 5, 6), strict=True))
    assert "| c | 2 / 3 / 4 / 5 / 6 |" in shown(now) and "+0.0‡ (+0.0)" in shown(now)
    former = shown({"accepted": 9, "shrunk": 2, "rolled back": 3, "reset": 1, "skipped": 11})
    assert "| c | 2 / 3 / 1 / 11 |" in former and "resting or skipped" in former and "‡" not in former


def test_a_page_out_of_date_is_found_and_filled(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: tuned -->\nold\n<!-- end -->\nafter\n")
    assert tables.rewrite(page, check=True) and "old" in page.read_text()
    assert tables.rewrite(page) and not tables.rewrite(page, check=True)
    assert page.read_text() == f"before\n<!-- table: tuned -->\n{tables.TABLES['tuned']()}\n<!-- end -->\nafter\n"


def test_checking_the_pages_is_part_of_make_check():
    check = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "benchmarks.tables --check" in check[1]
