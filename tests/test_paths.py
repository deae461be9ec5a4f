"""Doors that take a path take it as text too, and do the same with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from records import record, save

from allweather import CITYSCAPES, AllWeatherError
from allweather.data.labels import mapping_between
from allweather.models.catalogue import convert
from allweather.report import load_records, write_report
from allweather.runs.execute import execute
from allweather.runs.plan import Plan, read_plan
from allweather.scoring.folders import score_folders
from allweather.submit import submit

PLAN = '[[models]]\nname="demo:streetnet"\n[[streams]]\nname="scenes:fog"\n[[methods]]\nname="source"\n'
DOORS: dict[str, Callable[[Any], Any]] = {  # of a place, that holds what `place` makes
    "read_plan": lambda place: read_plan(place("plan.toml")),
    "execute": lambda place: execute(Plan(()), place("new")),
    "load_records": lambda place: load_records(place("records")),
    "write_report": lambda place: write_report(place("records"), place("report.html")),
    "score_folders": lambda place: (
        score_folders(place("labels"), place("labels"), mapping_between(CITYSCAPES, CITYSCAPES)).images
    ),
    "submit": lambda place: submit("cityscapes", place("run"), place("run.zip")),
    "convert": lambda place: convert("demo:streetnet", place("weights.pth"), place("weights.safetensors")),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "labels/0_labelTrainIds.png")
    save(tmp_path / "records", record("source", 0.4))
    return tmp_path


def outcome(door: str, place: Callable[[str], Any]) -> str:
    try:
        return repr(DOORS[door](place))
    except AllWeatherError as error:
        return str(error)


@pytest.mark.parametrize("door", DOORS)
def test_text_is_as_good_as_a_path(folder: Path, door: str):
    assert outcome(door, lambda name: str(folder / name)) == outcome(door, lambda name: folder / name)
