"""Summaries: a few kilobytes that say what the full records say, to the digit, and no more than they know."""

import json
from pathlib import Path

import pytest
from records import record, save

from allweather.errors import InputError
from allweather.report import load_records
from allweather.report.collect import against, changes, group_records
from allweather.report.compare import compare
from allweather.runs.record_file import read_record
from allweather.runs.summary import is_summary, per_image, stops_of, summarize
from benchmarks import summarize as command

RUNS = (record("source", 0.5), record("mall-domain", 0.8, seed=0), record("mall-domain", 0.7, seed=1))


@pytest.fixture
def summaries(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    save(tmp_path / "runs" / "plan", *RUNS)
    command.main(tmp_path / "runs", tmp_path / "kept")
    return tmp_path / "kept" / "plan"


def test_tables_of_summaries_are_those_of_the_records(summaries: Path) -> None:
    full, kept = group_records(RUNS), group_records(load_records(summaries))
    assert [group.label for group in kept] == [group.label for group in full]
    for before, after in zip(full, kept, strict=True):
        assert after.mean("mIoU") == before.mean("mIoU") and after.decisions == before.decisions
        assert after.interval == pytest.approx(before.interval, abs=1e-4)
        assert sum(after.per_image("iterations")) == pytest.approx(sum(before.per_image("iterations")))
    ours, theirs = (against(groups[1], groups[0]) for groups in (kept, full))
    assert ours is not None and theirs is not None and ours.level == theirs.level
    assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high), abs=1e-6)


def test_what_a_summary_does_not_know_it_does_not_say(summaries: Path) -> None:
    kept = load_records(summaries)
    groups = group_records(kept)
    assert changes(groups[1], groups[0]) == [] and compare(kept[0], kept[1])["paired"] is None
    assert per_image(kept[0], "unheard of") == [] and sum(stops_of(kept[0]).values()) == 4
    assert against(groups[0], groups[1]) is None  # the source is compared with nothing


def test_a_summary_is_small_and_stays_one(summaries: Path) -> None:
    for path in summaries.iterdir():
        content = json.loads(path.read_text())
        assert is_summary(content) and not {"images", "reliability"} & content.keys()
        assert summarize(content, []) == content
        assert path.stat().st_size < 4000 and len(path.read_text().splitlines()) == len(content) + 2


def test_a_record_with_neither_images_nor_summary_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "runs", {key: value for key, value in RUNS[0].items() if key != "images"})
    with pytest.raises(InputError, match="expected at least one"):
        read_record(folder / "0.json")
    (folder / "0.json").unlink()
    with pytest.raises(SystemExit, match="no record"):
        command.main(tmp_path, tmp_path / "kept")
