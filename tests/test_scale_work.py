"""A worker's stretch in this process: where it goes on, what it says, what it refuses; and who may stand alone."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from many import alone, labels, paint, same, session_of, task_of
from refusals import refusal
from tiny import tiny

from allweather import AllWeatherError, Segmenter, Session, SettingsError, methods
from allweather.app.makings import Makings
from allweather.app.spread import stands_alone
from allweather.methods.settings import from_anywhere
from allweather.plugins import told_as
from allweather.runs.plan import read_plan
from allweather.scale.benching import Benching, OneRun
from allweather.scale.carried import Carried, check_versions
from allweather.scale.merged import MergedRecord
from allweather.scale.places import Place
from allweather.scale.streams import split
from allweather.scale.task import BEGUN, FAILED, FATAL, LINES, Message, attempt
from allweather.scale.work import Stretch
from allweather.writing import unwritable


class Heard:
    """What a worker says; asks it to stop after so many frames."""

    def __init__(self, stop_after: int = 10**6):
        self.messages: list[Message] = []
        self._left = stop_after

    def say(self, message: Message):
        self.messages.append(message)

    def stopping(self) -> bool:
        self._left -= 1  # asked once a frame
        return self._left <= 0

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [line for message in self.messages for line in message.get(LINES, [])]

    @property
    def names(self) -> list[str]:
        return [line["name"] for line in self.lines]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return paint(tmp_path_factory.mktemp("streams"), {"fog": 7})


def test_a_stream_that_was_left_goes_on_where_it_was_saved(inputs: list[Path], tmp_path: Path):
    (source,) = split(inputs)
    do = task_of(tmp_path, "mall-domain", save_every=2).open(0)
    first = Heard(stop_after=3)
    position = attempt(do, Stretch(source, True), first).message["done"]["position"]
    assert position == 3 == len(first.names)
    assert Place(tmp_path, "fog").load(session_of("mall-domain")) == position
    again = Heard()
    attempt(task_of(tmp_path, "mall-domain").open(0), Stretch(source, True, frozenset(first.names)), again)
    assert first.names + again.names == source.names
    assert same(labels(tmp_path, source.names), alone(inputs, "mall-domain"))
    assert [path.name for path in (tmp_path / "sessions").iterdir()] == ["fog.safetensors"]


def test_a_saved_session_that_is_ahead_of_the_record_is_not_trusted(inputs: list[Path], tmp_path: Path):
    """As after a power failure: pictures and lines are lost, the session is there."""
    (source,) = split(inputs)
    attempt(task_of(tmp_path, "mall-domain", save_every=2).open(0), Stretch(source, True), Heard(stop_after=5))
    heard = Heard()
    attempt(task_of(tmp_path, "mall-domain").open(0), Stretch(source, True, frozenset(source.names[:2])), heard)
    assert heard.names == source.names[2:]
    assert same(labels(tmp_path, source.names), alone(inputs, "mall-domain"))


def test_a_careful_attempt_announces_each_frame_and_leaves_the_refused_ones_out(inputs: list[Path], tmp_path: Path):
    (source,) = split(inputs)
    job = Stretch(source, True).again(frozenset(), {"fog/001": "it ends workers"})
    heard = Heard()
    attempt(task_of(tmp_path, "mall-domain").open(0), job, heard)
    told = [message.get(BEGUN) or message[LINES][0]["name"] for message in heard.messages]
    assert told == [name for name in source.names for _ in range(2)]
    assert [line.get("failure") for line in heard.lines][:3] == [None, "fog/001: it ends workers", None]


def full(outcome: Any, classes: Any) -> dict[str, Any]:
    raise AllWeatherError("cannot write x: No space left on device.")


def out_of_memory(outcome: Any, classes: Any) -> dict[str, Any]:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def mistake(outcome: Any, classes: Any) -> dict[str, Any]:
    raise ValueError("a mistake")


class Own(Exception):
    """As user's code may have."""


def of_ones_own(outcome: Any, classes: Any) -> dict[str, Any]:
    raise Own


def silent_mistake(*_: Any) -> dict[str, Any]:
    raise RuntimeError


def own_mistake(outcome: Any, classes: Any) -> dict[str, Any]:
    with told_as("mine"):
        return mistake(outcome, classes)


@pytest.mark.parametrize(
    ("write", "kind", "said", "usable"),
    [
        (full, FATAL, "No space left", True),
        (out_of_memory, FAILED, "Fewer --workers, or a smaller --size", False),
        (own_mistake, FAILED, "mine failed: test_scale_work.py, line", False),
        (mistake, FAILED, "ValueError: a mistake", False),
        (of_ones_own, FAILED, "Own", False),
        (silent_mistake, FAILED, "RuntimeError: RuntimeError", False),
    ],
)
def test_what_ends_a_job(
    write: Callable[..., Any], kind: str, said: str, usable: bool, inputs: list[Path], tmp_path: Path
):
    (source,) = split(inputs)
    ended = attempt(task_of(tmp_path, "mall-domain", write).open(0), Stretch(source, True), Heard())
    assert said in ended.message[kind] and ended.usable == usable


PLAN = """
models = [{ name = "demo:streetnet", size = "64x48" }]
streams = [{ name = "scenes:fog", every = 24 }]
methods = [{ name = "source" }]
"""


def test_a_full_disk_is_met_by_every_run_of_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_room(path: Path, content: bytes, *, durable: bool):
        raise unwritable(path, OSError(errno.ENOSPC, "No space left on device"))

    (tmp_path / "plan.toml").write_text(PLAN)
    (job,) = map(OneRun, read_plan(tmp_path / "plan.toml").runs)
    monkeypatch.setattr("allweather.runs.execute.write_bytes", no_room)
    ended = attempt(Benching.here(tmp_path / "out", False, 1).open(0), job, Heard())
    assert "No space left on device" in ended.message[FATAL] and "the same command again" in ended.message[FATAL]


@pytest.mark.parametrize(
    ("method", "batch", "size", "expected"),
    [
        ("mall-sample", 1, None, True),
        ("mall-sample", 2, (48, 32), True),
        ("mall-sample", 2, None, False),
        ("mall-domain", 1, None, False),
        ("memo", 1, None, False),  # draws random numbers along the stream
        ("source", 1, None, True),
    ],
)
def test_which_frames_stand_alone(
    method: str, batch: int, size: Any, expected: bool, inputs: list[Path], tmp_path: Path
):
    session = session_of(method)
    makings = Makings(session.model, session, {}, "cpu", "online", batch, None)
    assert stands_alone(makings, split(inputs), size) is expected


def test_what_cannot_travel_and_who_cannot_work(monkeypatch: pytest.MonkeyPatch):
    model = tiny()
    model.network.register_forward_hook(lambda *_: None)
    with refusal("cannot be taken to other processes", SettingsError):
        Carried.pack(model, methods.Tent(), {}, "cpu", 1)
    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(3, 3, 1))
    with refusal(r"cannot be taken to other processes \(Serialization of parametrized", SettingsError):
        Carried.pack(Segmenter.wrap(layer.eval(), classes=model.classes), methods.Tent(), {}, "cpu", 1)
    with refusal(r"a worker has torch .*, this process has 1\.0"):
        check_versions({"torch": "1.0"})
    carried = Carried.pack(tiny(), methods.Tent(), {}, "cpu", 1)
    moved = Carried(carried.content, [("gone/mynet.py", "mynet")], "cpu", 1, carried.versions)
    with refusal(r"Install mynet.py on every machine"):
        moved.session(0)
    monkeypatch.setattr(Segmenter, "to", silent_mistake)
    with refusal(r"--device cpu: RuntimeError\. Choose another device, such as cpu\.$", SettingsError):
        carried.session(0)


def test_paths_of_a_method_are_found_from_a_workers_folder(
    inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(inputs[0].parent)
    method = methods.make("eata", settings={"source_images": inputs[0].name})
    Session(tiny(), method).save(tmp_path / "a.session")
    carried = Carried.pack(tiny(), method, {}, "cpu", 1)
    monkeypatch.chdir(tmp_path)
    worker = carried.session(0)
    assert worker.settings()["method"]["source_images"] == str(inputs[0])
    worker.load(tmp_path / "a.session")
    other = methods.make("eata", settings={"source_images": str(inputs[0].parent)})
    with refusal("saved with source_images=fog"):
        Session(tiny(), other).load(tmp_path / "a.session")
    worker.save(tmp_path / "b.session")
    (tmp_path / "fog").symlink_to(inputs[0])
    with refusal("saved with source_images=/"):
        Session(tiny(), method).load(tmp_path / "b.session")
    monkeypatch.chdir(inputs[0].parent)
    Session(tiny(), method).load(tmp_path / "b.session")
    assert from_anywhere(methods.make("eata", settings={"source_images": ""})).source_images == ""


def test_the_record_has_a_frame_once_and_keeps_what_is_whole(tmp_path: Path):
    line = {"name": "a/1", "decision": "accepted", "iterations": 1, "seconds": 0.1}
    with MergedRecord(tmp_path, {"threads": 1}, False) as record:
        assert record.keep([line, line, {"name": "a/2", "failure": "broken"}, {"name": "a/2", "failure": "again"}]) == [
            "a/2"
        ]
        record.keep([{**line, "name": "a/3"}])
    with MergedRecord(tmp_path, {"threads": 1}, True, lambda name: name != "a/3") as record:
        assert record.done == {"a/1"} and not record.failures  # what failed or is damaged is tried again
        done = {"decision": "shrunk", "reason": "why", "iterations": 1, "seconds": 0.1}
        record.keep([{"name": "a/2", "stream_passes": [done, done | {"decision": "accepted"}]}])
        record.finish({})
    found = [json.loads(text)["name"] for text in (tmp_path / "record.jsonl").read_text().splitlines()]
    assert found == ["a/1", "a/2"]
    assert json.loads((tmp_path / "record.json").read_text())["totals"]["decisions"]["accepted"] == 2
    assert json.loads((tmp_path / "record.json").read_text())["totals"]["decisions"]["shrunk"] == 1
    with refusal("already holds a run"):
        MergedRecord(tmp_path, {"threads": 1}, False)
    with refusal("of another run: threads was 1 and is 2"):
        MergedRecord(tmp_path, {"threads": 2}, True)


def test_a_record_grows_with_its_frames_alone(tmp_path: Path):
    sizes = []
    for count in (100, 1000):
        with MergedRecord(tmp_path / str(count), {}, False) as record:
            record.keep([{"name": f"s/{number:06d}", "decision": "accepted"} for number in range(count)])
        sizes.append((tmp_path / str(count) / "record.jsonl").stat().st_size / count)
    assert np.isclose(sizes[0], sizes[1])
