"""Decisions in records: every kind is written, counted and shown, and records of version 0.1 are read alike."""

from collections.abc import Sequence

import pytest
from records import record

from allweather import InputError
from allweather.report.collect import group_records
from allweather.report.compare import compare
from allweather.report.figures import curves
from allweather.report.page import tables_of
from allweather.report.refusals import COLUMN, MARK, NOTE, REMARK, cell, in_words, measures_guard, together
from allweather.report.table import Table
from allweather.runs.decisions import count, decision_of, decisions_of, describe, spell
from allweather.session import Decision
from allweather.session.guard import KINDS

WHY = "classes keep 0.98 of the pixels"
FORMER = {  # kind → as version 0.1 spelt it
    "accepted": "accepted",
    "shrunk": f"shrunk: {WHY}",
    "rolled-back": f"rolled back: {WHY}",
    "reset": f"reset: {WHY}",
    "resting": "skipped: resting after a reset",
    "skipped": "skipped: the image is constant",
}
TIMES = {kind: number for number, kind in enumerate(KINDS, 1)}  # each kind another number of times


def decided(times: dict[str, int], former: bool, method: str = "tent", **changes: object) -> dict:
    """A record whose images met each kind so many times, as this version or the former writes it."""
    made = record(method, 0.5, **changes)
    kinds = [kind for kind, number in times.items() for _ in range(number)]
    reasons = {kind: FORMER[kind].partition(": ")[2] for kind in KINDS}
    entries = [{"decision": FORMER[kind]} if former else describe(Decision(kind, reasons[kind])) for kind in kinds]
    shown = made["images"] * (1 + len(kinds) // len(made["images"]))
    made["images"] = [
        image | {"name": f"f{index}"} | entry for index, (image, entry) in enumerate(zip(shown, entries, strict=False))
    ]
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_read_as_it_was_written_and_as_version_0_1_wrote_it(kind: str):
    decision = Decision(kind, FORMER[kind].partition(": ")[2])
    assert decision_of(describe(decision)) == decision == decision_of({"decision": FORMER[kind]})
    assert ("reason" in describe(decision)) is (kind != "accepted")
    assert decision_of({"iterations": 1}) is None


def test_a_decision_of_no_known_kind_is_named():
    with pytest.raises(InputError, match="image f3: expected a decision that begins with one of accepted, shrunk"):
        decision_of({"name": "f3", "decision": "forgiven"})


@pytest.mark.parametrize("former", [False, True])
def test_every_kind_is_counted(former: bool):
    made = decided(TIMES, former)
    assert decisions_of(made) == TIMES and list(decisions_of(made)) == list(KINDS)
    assert decisions_of({"images": {image["name"]: image for image in made["images"]}}) == TIMES
    assert spell(TIMES) == "2 shrunk, 3 rolled back, 4 reset, 5 resting, 6 skipped"
    assert count([]) == dict.fromkeys(KINDS, 0) and spell(count([])) == ""


def row_of(tables: Sequence[Table], title: str, label: str) -> dict[str, object]:
    table = next(table for table in tables if table.title.startswith(title))
    return next(dict(zip(table.columns, row, strict=True)) for row in table.rows if row[1] == label)


@pytest.mark.parametrize("title", ["rain & fog, online", "IoU of each class", "Where adaptation hurt"])
def test_every_table_of_results_shows_every_kind_whichever_version_wrote_the_record(title: str):
    source, times = decided({"accepted": 21}, False, "source"), "2 / 3 / 4 / 5 / 6"
    for former in (False, True):
        tables = tables_of(group_records([source, decided(TIMES, former)]))
        assert row_of(tables, title, f"tent {MARK}")[COLUMN] == times
        text = next(table for table in tables if table.title.startswith(title)).markdown()
        assert times in text and NOTE in text and REMARK in text


def test_several_orders_are_their_mean_with_the_range_and_several_streams_add_up():
    more = TIMES | {"shrunk": 3, "accepted": 0}
    runs = [decided(TIMES, False, seed=0), decided(more, True, seed=1)]
    tables = tables_of(group_records(runs))
    assert row_of(tables, "rain & fog, online", f"tent {MARK}")[COLUMN] == "2.5 (2–3) / 3 / 4 / 5 / 6"
    both = [*runs, *(decided(TIMES, False, stream="night", seed=seed) for seed in (0, 1))]
    tables = tables_of(group_records(both))
    assert row_of(tables, "By condition", f"tent {MARK}")[COLUMN] == "4.5 (4–5) / 6 / 8 / 10 / 12"
    uneven = together([[TIMES, more], [TIMES]])
    assert cell(uneven) == "4.5 / 6 / 8 / 10 / 12"
    assert cell([{**TIMES, **dict.fromkeys(KINDS[1:], 0), "accepted": 3}]) == "none"


def test_the_mark_stands_where_more_than_a_third_was_refused_or_rested():
    for kind in KINDS:
        third, more = ({**count([]), "accepted": 20, kind: number} for number in (10, 11))
        guarded = kind in ("shrunk", "rolled-back", "reset", "resting")
        assert not measures_guard([third]) and measures_guard([more]) is guarded
    assert in_words([TIMES, TIMES | {"shrunk": 5}]).startswith("3.5 (2–5) shrunk, 3 rolled back")
    made = decided({"accepted": 20, "shrunk": 10}, False)
    table = next(table for table in tables_of(group_records([made])) if table.title.startswith("rain"))
    assert MARK not in table.markdown() and "10 / 0 / 0 / 0 / 0" in table.markdown()


def test_the_curve_shows_where_the_guard_refused_any_kind():
    free = {"iterations": 2, "stop_patience": 1000000}
    drawn = {}
    for kind in ("accepted", "shrunk", "resting", "skipped"):
        made = decided({kind: 2, "accepted": 2}, False, "mall-sample", fields=free)
        another = decided({"accepted": 4}, False, "mall-sample", fields={**free, "iterations": 3})
        (drawn[kind],) = curves(group_records([made, another])).values()
    assert drawn["accepted"] == drawn["skipped"] != drawn["shrunk"] == drawn["resting"]


def test_images_without_a_decision_give_no_numbers():
    assert row_of(tables_of(group_records([record("tent", 0.5)])), "rain", "tent")[COLUMN] is None


def test_comparing_names_the_kinds_that_differ():
    found = compare(decided(TIMES, True), decided(TIMES | {"reset": 9}, False))
    assert found["figures"] == {"decisions.reset": [4, 9, 5]} and found["settings"] == {}
