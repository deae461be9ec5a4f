"""Streams over worker processes: labels are a single process's, whatever ends, is killed or resumed."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from many import SIZE, Deadly, alone, conduct, labels, paint, same, spread, task_of
from PIL import Image
from refusals import refusal

from allweather.app.pictures import Pictures
from allweather.scale import processes
from allweather.scale.conduct import Conductor
from allweather.scale.merged import MergedRecord
from allweather.scale.processes import ProcessPool
from allweather.scale.streams import split
from allweather.scale.task import Do, Message, Talk
from allweather.scale.work import Line

COUNTS = {"fog": 5, "rain": 7, "snow": 4, "night": 6, "overcast": 3, "clear": 5}
METHODS = ("mall-sample", "mall-domain")
REAL = {"overcast": "dusk", "clear": "day"}  # what CamVid has in place of them


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six streams of procedural frames; two of them CamVid's where its frames are at hand."""
    folders = paint(tmp_path_factory.mktemp("streams"), COUNTS)
    for folder in folders[-2:] if "ALLWEATHER_ASSETS" in os.environ else []:
        real = Path(os.environ["ALLWEATHER_ASSETS"]) / "camvid" / REAL[folder.name] / "images"
        for place, picture in zip(sorted(folder.iterdir()), sorted(real.iterdir()), strict=False):
            with Image.open(picture) as image:
                image.resize(SIZE).save(place)
    return folders


@pytest.fixture(scope="module")
def expected(inputs: list[Path]) -> dict[str, Any]:
    return {method: alone(inputs, method) for method in METHODS}


def names_of(out: Path) -> list[str]:
    return [json.loads(line)["name"] for line in (out / "record.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_two_workers_give_the_labels_of_one_process_though_one_of_them_is_killed(
    method: str, inputs: list[Path], expected: dict[str, Any], tmp_path: Path
):
    def killer(pool: ProcessPool) -> Any:
        seen: list[str] = []

        def heard(lines: list[Line]):
            seen.extend(line["name"] for line in lines)
            if len(seen) == 9:
                os.kill(pool.pids[0], signal.SIGKILL)

        return heard

    record, conducted = spread(inputs, tmp_path, method, keep=killer, save_every=2)
    assert conducted.again == 1 and not conducted.given_up and not record.failures
    assert same(labels(tmp_path, record.done), expected[method]) and len(record.done) == sum(COUNTS.values())
    streams = [] if method == "mall-sample" else sorted(COUNTS)
    assert sorted(path.stem for path in (tmp_path / "sessions").glob("*.safetensors")) == streams
    assert sorted(names_of(tmp_path)) == sorted(expected[method])  # each once


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_ended_in_the_middle_is_finished_by_another_number_of_workers(
    method: str, inputs: list[Path], expected: dict[str, Any], tmp_path: Path
):
    def stopper(pool: ProcessPool) -> Any:
        def heard(lines: list[Line], seen: list[int] = [0]):  # noqa: B006
            seen[0] += 1
            if seen[0] == 8:
                raise KeyboardInterrupt

        return heard

    with pytest.raises(KeyboardInterrupt):
        spread(inputs, tmp_path, method, keep=stopper, save_every=3)
    before = names_of(tmp_path)
    assert 8 <= len(before) < sum(COUNTS.values())
    kept = {path.name.split(".")[1] for path in (tmp_path / "sessions").glob(".*.safetensors")}
    done = Counter(name.split("/")[0] for name in before)
    assert method == "mall-sample" or kept >= {name for name, count in done.items() if count < COUNTS[name]}
    record, _ = spread(inputs, tmp_path, method, workers=1)
    assert same(labels(tmp_path, record.done), expected[method])
    assert sorted(names_of(tmp_path)) == sorted(expected[method])


@pytest.mark.usefixtures("warm_workers")
def test_a_frame_that_ends_every_worker_fails_alone(inputs: list[Path], expected: dict[str, Any], tmp_path: Path):
    deadly = Deadly(Pictures(tmp_path, ("labels",)), "snow/002")
    record, conducted = spread(inputs[2:3], tmp_path, "mall-domain", workers=1, write=deadly)
    assert list(record.failures) == ["snow/002"] and not conducted.given_up
    assert "given up after 3 attempts: the worker ended by itself (killed by SIGKILL" in record.failures["snow/002"]
    assert sorted(record.done) == ["snow/000", "snow/001", "snow/003"]
    before = {name: expected["mall-domain"][name] for name in ("snow/000", "snow/001")}
    assert same(labels(tmp_path, before), before)


@pytest.mark.usefixtures("warm_workers")
def test_workers_that_never_begin_end_the_run(inputs: list[Path], tmp_path: Path):
    task = replace(task_of(tmp_path, "mall-domain"), token="not there")
    with (
        MergedRecord(tmp_path, {}, True) as record,
        ProcessPool(task, 1) as pool,
        refusal(r"does not see .* all machines share"),
    ):
        conduct(pool, split(inputs), record, False)
    assert not pool.pids


@dataclass(frozen=True)
class Named:
    """A job that is nothing but its title."""

    title: str


@dataclass(frozen=True)
class Faulty:
    """A task whose worker ends, some time after it has said so, with each job that is called bad."""

    def open(self, index: int) -> Do:
        return self.do

    def do(self, job: Named, talk: Talk) -> Message:
        if job.title.startswith("bad"):
            threading.Timer(0.5, lambda: None).start()  # which the interpreter waits for when it ends
            raise ValueError("my bug")
        return {}


@dataclass(frozen=True)
class Stuck:
    """A task whose worker says that it has begun, and never ends."""

    begun: Path

    def open(self, index: int) -> Do:
        processes.ORPHANED = 0.2
        return self.do

    def do(self, job: Named, talk: Talk) -> Message:
        self.begun.write_text(str(os.getpid()))
        threading.Event().wait()
        return {}


def keep_at_work(begun: Path):
    """The first process of a run whose worker is stuck."""
    pool = ProcessPool(Stuck(begun), 1)
    pool.begin(Named("stuck"))
    threading.Event().wait()


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at /proc")
def test_a_worker_that_is_stuck_ends_after_the_first_process_was_killed(tmp_path: Path):
    begun = tmp_path / "begun"
    first = get_context("spawn").Process(target=keep_at_work, args=(begun,))
    first.start()
    wait_for(lambda: begun.exists() and begun.read_text())
    worker = int(begun.read_text())
    first.kill()
    first.join(30)
    wait_for(lambda: not running(worker))


def running(pid: int) -> bool:
    """Whether a process is there, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], Any]):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.usefixtures("warm_workers")
def test_a_worker_that_is_about_to_end_gets_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is given up has the reason of its own fault, what is not at fault is done, however many end at once."""
    monkeypatch.setattr(processes, "BIRTHS", 1)
    jobs = [Named("bad-0"), Named("bad-1"), Named("good")]
    with ProcessPool(Faulty(), 2) as pool:
        done = Conductor(pool, lambda lines: None, lambda job, refused: job, retries=0).run(jobs)
    assert done.given_up == {"bad-0": "ValueError: my bug", "bad-1": "ValueError: my bug"}
    assert done.results == {"good": {}} and not done.again


def test_an_interruption_waits_for_slow_frames(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("allweather.scale.conduct.PATIENCE", 0.0)
    said, kept = [Mock(message={"lines": [{"name": "a", "seconds": 99.0}]})], list[Line]()
    pool = Mock(idle=0, busy=1, events=Mock(side_effect=[said, KeyboardInterrupt, said, KeyboardInterrupt]))
    with pytest.raises(KeyboardInterrupt):
        Conductor(pool, kept.extend, lambda job, refused: job).run([])
    assert len(kept) == 2
