"""Streams over worker processes: labels are a single process's, whatever ends, is killed or resumed."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from many import Deadly, alone, labels, paint, same, spread

from allweather.app.pictures import Pictures
from allweather.scale.places import Place
from allweather.scale.processes import ProcessPool
from allweather.scale.work import Line

COUNTS = {"fog": 5, "rain": 7, "snow": 4, "night": 6, "overcast": 3, "clear": 5}
METHODS = ("mall-sample", "mall-domain")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return paint(tmp_path_factory.mktemp("streams"), COUNTS)


@pytest.fixture(scope="module")
def expected(inputs: list[Path]) -> dict[str, Any]:
    return {method: alone(inputs, method) for method in METHODS}


def names_of(out: Path) -> list[str]:
    return [json.loads(line)["name"] for line in (out / "record.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_two_workers_on_six_streams_give_the_labels_of_one_process(
    method: str, inputs: list[Path], expected: dict[str, Any], tmp_path: Path
) -> None:
    record, conducted = spread(inputs, tmp_path, method)
    assert not conducted.given_up and not record.failures
    assert same(labels(tmp_path, record.done), expected[method]) and len(record.done) == sum(COUNTS.values())
    streams = [] if method == "mall-sample" else sorted(COUNTS)
    assert sorted(path.stem for path in (tmp_path / "sessions").glob("*.safetensors")) == streams
    assert sorted(names_of(tmp_path)) == sorted(expected[method])


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_is_killed_changes_nothing(
    method: str, inputs: list[Path], expected: dict[str, Any], tmp_path: Path
) -> None:
    def killer(pool: ProcessPool) -> Any:
        seen: list[str] = []

        def heard(lines: list[Line]) -> None:
            seen.extend(line["name"] for line in lines)
            if len(seen) == 9:
                os.kill(pool.pids[0], signal.SIGKILL)

        return heard

    record, conducted = spread(inputs, tmp_path, method, keep=killer, save_every=2)
    assert conducted.again == 1 and not conducted.given_up and not record.failures
    assert same(labels(tmp_path, record.done), expected[method])
    assert sorted(names_of(tmp_path)) == sorted(expected[method])  # each once


class Enough(Exception):
    pass


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_ended_in_the_middle_is_finished_by_another_number_of_workers(
    method: str, inputs: list[Path], expected: dict[str, Any], tmp_path: Path
) -> None:
    def stopper(pool: ProcessPool) -> Any:
        def heard(lines: list[Line], seen: list[int] = [0]) -> None:  # noqa: B006
            seen[0] += 1
            if seen[0] == 8:
                raise KeyboardInterrupt

        return heard

    with pytest.raises(KeyboardInterrupt):
        spread(inputs, tmp_path, method, keep=stopper, save_every=3)
    before = names_of(tmp_path)
    assert 8 <= len(before) < sum(COUNTS.values())
    assert method == "mall-sample" or list((tmp_path / "sessions").glob(".*.safetensors"))
    record, _ = spread(inputs, tmp_path, method, workers=1)
    assert same(labels(tmp_path, record.done), expected[method])
    assert sorted(names_of(tmp_path)) == sorted(expected[method])


@pytest.mark.parametrize("method", METHODS)
def test_a_frame_that_ends_every_worker_fails_alone(
    method: str, inputs: list[Path], expected: dict[str, Any], tmp_path: Path
) -> None:
    deadly = Deadly(Pictures(tmp_path, ("labels",)), "snow/002")
    record, conducted = spread(inputs[1:3], tmp_path, method, write=deadly)
    assert list(record.failures) == ["snow/002"] and not conducted.given_up
    assert "given up after 3 attempts: the worker ended by itself (killed by SIGKILL" in record.failures["snow/002"]
    assert len(record.done) == COUNTS["rain"] + COUNTS["snow"] - 1
    before = {
        name: value for name, value in expected[method].items() if name.startswith(("rain", "snow/000", "snow/001"))
    }
    assert same(labels(tmp_path, before), before)


def test_a_saved_session_that_is_ahead_of_the_record_is_not_trusted(
    inputs: list[Path], expected: dict[str, Any], tmp_path: Path
) -> None:
    """As after a power failure: pictures and lines are lost, the session is there."""
    spread(inputs[:1], tmp_path, "mall-domain", save_every=2)
    place = Place(tmp_path, "fog")
    place.final.rename(tmp_path / "sessions" / ".fog.4.safetensors")
    lines = (tmp_path / "record.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_text("".join(lines[:2]))
    record, _ = spread(inputs[:1], tmp_path, "mall-domain")
    fog = {name: value for name, value in expected["mall-domain"].items() if name.startswith("fog")}
    assert same(labels(tmp_path, record.done), fog)
