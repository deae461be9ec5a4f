"""Summaries: a few kilobytes that say what the full records say, to the digit, and no more than they know."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records import record, save

from allweather import InputError
from allweather.report import load_records
from allweather.report.collect import against, changes, group_records
from allweather.report.compare import compare
from allweather.report.figures import reliability
from allweather.report.page import tables_of
from allweather.runs.decisions import decisions_of
from allweather.runs.execute import execute
from allweather.runs.plan import read_plan
from allweather.runs.record_file import read_record
from allweather.runs.summary import is_summary, key_of, paired, per_image, stops_of, summarize
from allweather.scoring.confusion import ConfusionMatrix
from allweather.session.guard import KINDS
from benchmarks import packed as packing
from benchmarks import summarize as command
from benchmarks.packed import main as packed
from benchmarks.packed import pack, read_kept, unpack

PIECES = ("01/fog", "01/night", "02/fog", "02/night")


def sequence(method: str, right: float, seed: int = 0) -> dict:
    """A record of four pieces with one image each, every image with a decision of another kind."""
    parts = {piece: {"mIoU": 40.0 + seed, "pixel_accuracy": 90.0} for piece in PIECES}
    made = record(method, right, seed=seed, parts=parts)
    matrix = np.array([[image["intersection"], image["union"]] for image in made["images"]]).sum(0)
    wrong = matrix[1] - matrix[0]
    made["confusion"] = [[*row, 0] for row in (np.diag(matrix[0]) + np.roll(np.diag(wrong // 2), 1, 1)).tolist()]
    for piece, image, kind in zip(PIECES, made["images"], KINDS[1:], strict=False):
        image |= {"name": f"{piece}/0", "decision": kind, "reason": "why", "stop": "cap"}
    made["seconds"] = 2.0
    return made | {"rolled_back": ["01/fog/0"], "skipped_updates": []}


RUNS = (sequence("source", 0.5), sequence("mall-domain", 0.8), sequence("mall-domain", 0.4, 1), sequence("tent", 0.6))


@pytest.fixture
def summaries(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    save(tmp_path / "runs/plan", *RUNS)
    command.main(tmp_path / "runs", tmp_path / "kept")
    packed(["unpack", str(tmp_path / "kept/plan.jsonl"), str(tmp_path / "unpacked")])
    return tmp_path / "unpacked"


def test_every_table_of_summaries_is_that_of_the_records(summaries: Path):
    full, kept = (tables_of(group_records(records)) for records in (RUNS, load_records(summaries)))
    assert [table.markdown() for table in kept] == [table.markdown() for table in full]
    titles = [table.title for table in kept]
    assert "Where adaptation hurt" in titles and any("piece by piece" in title for title in titles)
    ours, theirs = (
        against(*(group_records(records)[i] for i in (2, 0))) for records in (load_records(summaries), RUNS)
    )
    assert ours.level == theirs.level
    assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high), abs=1e-6)


def test_reliability_is_drawn_of_summaries_too(summaries: Path):
    full, kept = (reliability(group_records(records)) for records in (RUNS, load_records(summaries)))
    assert kept == full and len(full) == 1


def test_two_summaries_are_compared_as_the_records_are_either_way_round(summaries: Path):
    kept = load_records(summaries)
    for first, second in ((0, 1), (1, 0), (3, 2), (2, 3)):
        found, wanted = compare(kept[first], kept[second]), compare(RUNS[first], RUNS[second])
        assert found["paired"] == wanted["paired"] is not None and found["figures"] == wanted["figures"]
    assert compare(RUNS[0], kept[1])["paired"] == compare(RUNS[0], RUNS[1])["paired"]
    assert compare(kept[0], RUNS[1])["paired"] is None  # the source's summary holds no difference, a full record none


def test_runs_that_are_scored_at_other_sizes_are_not_paired():
    other = deepcopy(RUNS[1])
    other["run"]["scoring"] = "1024x512"
    large, small, both = ({**RUNS[1], "resolution": {"scored": sizes}} for sizes in (["8x4"], ["4x2"], ["4x2", "8x4"]))
    for first, second in ((RUNS[0], other), (large, small)):
        assert compare(first, second)["paired"] is None and paired(first, second) is None
        assert compare(first, summarize(second, [first]))["paired"] is None
    assert compare(large, both)["paired"]


def test_the_order_of_images_does_not_change_an_interval():
    ours = [record(name, 0.5) for name in ("source", "tent")]
    for one, gain in zip(ours, (0, 0.002), strict=True):
        one["images"] = [record("x", 0.5 + gain * k**2)["images"][0] | {"name": f"{k}"} for k in range(12)]
    turned = [{**one, "images": one["images"][::-1]} for one in ours]
    kept = turned[0], summarize(turned[1], turned)
    assert compare(*turned)["paired"] == compare(*kept)["paired"] == compare(*ours)["paired"]


def test_what_a_summary_does_not_know_it_does_not_say(summaries: Path):
    kept = load_records(summaries)
    groups = group_records(kept)
    assert changes(groups[1], groups[0]) == [] and per_image(kept[0], "unheard of") == []
    assert paired(kept[0], sequence("source", 0.3)) is None and sum(stops_of(kept[0]).values()) == 4
    alone = group_records([kept[0], kept[1]])  # harm was worked out for two runs together
    assert "Where adaptation hurt" not in [table.title for table in tables_of(alone)]


def test_decisions_are_kept_by_piece(summaries: Path):
    (kept, *_) = load_records(summaries)
    for part in ("", "01/", "02/", "01/fog/", "03/"):
        assert decisions_of(kept, part) == decisions_of(RUNS[0], part), part
    assert sum(decisions_of(kept, "01/").values()) == 2


def test_runs_that_were_made_twice_are_two():
    again = deepcopy(RUNS[0]) | {"finished": "later"}
    assert key_of(again) != key_of(RUNS[0]) == key_of(summarize(RUNS[0], []))


def test_figures_of_the_confusion_matrix_are_computed_anew(summaries: Path):
    kept = load_records(summaries)[0]
    matrix = ConfusionMatrix(3, np.array(kept["confusion"]))
    old = {**kept, "figures": {key: kept["figures"][key] for key in ("mIoU", "IoU", "interval")}}
    (group,) = group_records([old])
    assert group.mean("pixel_accuracy") == round(100 * matrix.pixel_accuracy, 2) > 0
    assert group.mean("class_accuracy") == round(100 * matrix.class_accuracy, 2) > 0
    assert np.isnan(group.mean("of a later day"))


def test_a_summary_is_small_and_stays_one(summaries: Path):
    for path in summaries.iterdir():
        content = json.loads(path.read_text())
        assert is_summary(content) and not {"images", "reliability", "rolled_back", "skipped_updates"} & content.keys()
        assert summarize(content, []) == content
        assert path.stat().st_size < 4000 and len(path.read_text().splitlines()) == len(content) + 2


def test_packed_summaries_are_the_same_in_every_key_number_and_order(summaries: Path):
    kept = {path.name: json.loads(path.read_text()) for path in sorted(summaries.iterdir())}
    kept["one.json"] = {**kept["0.json"], "views": 1}
    kept["other.json"] = {**kept["0.json"], "views": 1.0, "seconds": None, "versions": {}, "model": []}
    kept["turned.json"] = dict(
        reversed({**kept["3.json"], "figures": dict(reversed(kept["3.json"]["figures"].items()))}.items())
    )
    kept["wrong.json"] = {**kept["0.json"], "figures": {**kept["0.json"]["figures"], "mIoU": 12.5}}
    kept["bare.json"] = {key: value for key, value in kept["0.json"].items() if key != "confusion"}
    text = pack(kept)
    assert json.dumps(unpack(text)) == json.dumps(kept)
    assert len(text.splitlines()) == len(kept) and len(text) < len(json.dumps(kept)) / 2


def test_summaries_of_a_folder_are_newer_than_those_packed_beside_it(summaries: Path):
    packed(["pack", str(summaries)])
    assert not summaries.exists() and len(read_kept(summaries)) == 4
    newer = {**read_kept(summaries)["1.json"], "seconds": 9.0}
    summaries.mkdir()
    (summaries / "1.json").write_text(json.dumps(newer))
    assert read_kept(summaries)["1.json"] == newer and len(read_kept(summaries)) == 4
    packed(["pack", str(summaries)])
    assert read_kept(summaries)["1.json"] == newer and len(read_kept(summaries)) == 4


@pytest.mark.parametrize("key", ["file", "like", "-", "derived"])
def test_a_record_with_a_key_that_packing_needs_is_refused(key: str):
    summary = summarize(RUNS[0], [])
    changed = {**summary, "figures": {**summary["figures"], key: 1}} if key == "derived" else {**summary, key: 1}
    with pytest.raises(ValueError, match=r"a\.json uses a key"):
        pack({"a.json": changed})


def test_a_large_file_is_kept_compressed_and_a_small_one_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "runs").mkdir()
    save(tmp_path / "runs/plan", *RUNS)
    for large, there, other in ((10, ".jsonl.gz", ".jsonl"), (10**9, ".jsonl", ".jsonl.gz")):
        monkeypatch.setattr(packing, "LARGE", large)
        command.main(tmp_path / "runs", tmp_path / "kept")
        plan = tmp_path / "kept/plan"
        assert plan.with_suffix(there).exists() and not plan.with_suffix(other).exists()
        packed(["unpack", str(plan.with_suffix(there)), str(tmp_path / there)])
        found = {path.name: json.loads(path.read_text()) for path in (tmp_path / there).iterdir()}
        assert found == read_kept(plan) and len(found) == len(RUNS)


def test_a_run_whose_summary_is_there_is_not_made_again(tmp_path: Path):
    (tmp_path / "plan.toml").write_text(
        '[[models]]\nname = "demo:streetnet"\nsize = "64x48"\n[[streams]]\nname = "scenes:fog"\nevery = 20\n'
        '[[methods]]\nname = "source"\n[[methods]]\nname = "tent"\n'
    )
    plan = read_plan(tmp_path / "plan.toml")
    made = execute(plan, tmp_path / "runs/plan")
    command.main(tmp_path / "runs", tmp_path / "kept")
    packed(["unpack", str(tmp_path / "kept/plan.jsonl"), str(tmp_path / "unpacked")])
    again = execute(plan, tmp_path / "unpacked")
    assert len(made.done) == 2 and again.kept == made.done and not again.done and not again.outdated
    path = tmp_path / "unpacked" / next(name for name in made.done if "tent" in name)
    content = json.loads(path.read_text())
    content["session"]["method"]["lr"] = 1.0
    path.write_text(json.dumps(content))
    assert list(execute(plan, path.parent).outdated) == [path.name]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("summary", "interval"), [1.0], "summary.interval: expected 2 numbers, got 1"),
        (("summary", "images"), 0, "summary.images: expected at least one"),
        (("summary", "paired"), {"a": [1, 2]}, "summary.paired.a: expected 3 numbers, got 2"),
        (
            ("summary", "paired"),
            {"a": ["x"]},
            "summary.paired.a.0: expected a whole number or a number or null, got 'x'",
        ),
        (("summary", "decisions"), {"": {"shrunk": "x"}}, "summary.decisions..shrunk: expected a whole number"),
        (("summary", "reliability", "accuracy"), [], "summary.reliability.accuracy: expected 1 numbers, got 0"),
        (("summary", "harm"), {"lost": 1}, "summary.harm.source is missing"),
        (("summary",), 3, "summary: expected an object"),
    ],
)
def test_a_damaged_summary_is_one_line(summaries: Path, place: tuple[str, ...], value: Any, said: str):
    path = summaries / "1.json"
    content = json.loads(path.read_text())
    inside = content
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_record(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_record_with_neither_images_nor_summary_is_refused(tmp_path: Path):
    folder = save(tmp_path / "runs", {key: value for key, value in RUNS[0].items() if key != "images"})
    with pytest.raises(InputError, match="expected at least one"):
        read_record(folder / "0.json")
    (folder / "0.json").unlink()
    with pytest.raises(SystemExit, match="no record"):
        command.main(tmp_path, tmp_path / "kept")
