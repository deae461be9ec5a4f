"""Presets named `paper` against the numbers that public code of their authors gave: every step, every parameter."""

import os
from dataclasses import replace
from typing import Any

import pytest

from allweather import methods
from allweather.errors import SettingsError
from allweather.methods import METHODS
from benchmarks.fidelity_cases import BY_NAME, CASES, FIXTURE, REAL, Case, distances, read_fixture, run

RECORDED = read_fixture()
TINY = [case for case in CASES if not case.name.endswith(REAL)]
ALIKE = {
    ("memo", "momentum"),
    ("rotta", "share"),
}  # one step is made, then all is reset; the network's own share is 0.05


@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_it_does_what_its_authors_published(case: Case):
    for number, step in enumerate(distances(case, RECORDED[case.name], run(case)), start=1):
        assert step.within(case), f"step {number}: {step}"


@pytest.mark.skipif("ALLWEATHER_ASSETS" not in os.environ, reason="real weights and frames need ALLWEATHER_ASSETS")
@pytest.mark.parametrize("case", [case for case in CASES if case.name.endswith(REAL)], ids=lambda case: case.name)
def test_so_it_does_on_a_real_network(case: Case):
    for number, step in enumerate(distances(case, RECORDED[case.name], run(case)), start=1):
        assert step.within(case), f"step {number}: {step}"


def test_several_steps_of_tent_report_the_last_but_one():
    """Theirs shows the forward pass of the last of three steps: what the network predicts after two."""
    case = BY_NAME["tent, 3 steps"]
    twice = replace(case, settings={**case.settings, "iterations": 2, "report_after": True})
    assert all(step.within(case) for step in distances(case, RECORDED[case.name], run(twice)))


def published() -> list[tuple[str, str]]:
    """Every field of a preset that the authors set otherwise than the default, with a case that shows it."""
    shown = {case.method: case for case in reversed(TINY)}
    return [
        (case.name, field)
        for method, case in shown.items()
        for field, value in METHODS[method].presets["paper"].items()
        if field not in case.settings and (method, field) not in ALIKE and value != default(method, field)
    ]


def default(method: str, field: str) -> Any:
    return methods.describe_fields(METHODS[method])[field]["default"]


@pytest.mark.parametrize(("name", "field"), published())
def test_every_published_setting_shows(name: str, field: str):
    """With its default in place of one published value the product is no longer what was published."""
    case = BY_NAME[name]
    changed = replace(case, settings={**case.settings, field: default(case.method, field)})
    if field == "episodic":  # reporting before the only update of a batch shows nothing of it
        with pytest.raises(SettingsError, match="would never be seen"):
            run(changed)
        return
    assert not all(step.within(case) for step in distances(case, RECORDED[name], run(changed)))


def test_the_fixture_names_its_sources_and_stays_small():
    assert set(RECORDED) == set(BY_NAME)
    assert all("@" in found["public"] and found["adapted"] for found in RECORDED.values())
    assert FIXTURE.stat().st_size <= 150_000
