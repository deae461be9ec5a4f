"""Live's small parts: how often to learn, quantiles, durations, threads; and learning in a process of its own."""

import errno
import logging
import random
import time
import warnings
from collections.abc import Iterator
from io import StringIO
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from refusals import refusal
from simulated import picture
from tiny import CLASSES, tiny

from allweather import Frame, Live, Segmenter, Session, SettingsError, load_model
from allweather.app.options import parse_every, parse_seconds
from allweather.data.json_lines import read_json_lines
from allweather.errors import NcutAccuracyWarning
from allweather.live import process, record
from allweather.live.devices import OwnStream, split_threads, thread_count
from allweather.live.pace import RAREST, Pace, stride_that_fits
from allweather.live.process import ProcessPupil, heard, speak_through
from allweather.live.record import Record
from allweather.live.sources import Shot, Source
from allweather.live.totals import Latencies
from allweather.methods import MallDomain
from allweather.session.handover import serve, state_of


@pytest.mark.parametrize(
    ("budget", "alone", "beside", "frames", "stride"),
    [
        (0.10, 0.05, 0.20, 1, 3),  # one slow prediction in three takes 0.1 on average
        (0.10, 0.05, 0.08, 1, 1),  # it fits always
        (0.10, 0.05, 0.20, 4, 12),
        (0.10, 0.12, 0.20, 1, RAREST),  # nothing fits
        (0.10, 0.10, 0.20, 1, RAREST),
    ],
)
def test_learning_is_as_frequent_as_the_budget_allows(
    budget: float, alone: float, beside: float, frames: float, stride: int
):
    assert stride_that_fits(budget, alone, beside, frames) == stride
    if stride < RAREST and beside > budget:
        share = frames / stride
        assert share * beside + (1 - share) * alone <= budget + 1e-9
        closer = min(1.0, frames / (stride - 1))
        assert closer * beside + (1 - closer) * alone > budget


@pytest.mark.parametrize(
    ("waits", "budget", "learning", "beside", "stride"),
    [
        (False, None, 9.0, 9.0, 1), (False, 0.1, 0.4, 0.09, 1), (False, 0.1, 0.4, 0.2, 12), (True, 0.1, 0.3, None, 5),
        (True, None, 0.3, None, 1),
    ],
)  # fmt: skip
def test_auto_looks_at_what_was_measured(
    waits: bool, budget: float | None, learning: float, beside: float | None, stride: int
):
    pace = Pace("auto", budget, waits)
    assert pace.stride() == 1
    pace.alone.add(0.05)
    pace.learning.add(learning)
    pace.between.add(0.1)
    if beside is not None:
        pace.beside.add(beside)
    assert pace.stride() == stride


def test_quantiles_are_within_two_per_cent_and_need_no_memory():
    found, draw = Latencies(), random.Random(0)
    assert found.quantile(0.5) is None
    values = sorted(draw.lognormvariate(-3, 1) for _ in range(20_000))
    for value in values:
        found.add(value)
    for share in (0.01, 0.5, 0.95, 1.0):
        assert found.quantile(share) == pytest.approx(values[max(0, round(share * len(values)) - 1)], rel=0.02)
    assert len(found._bins) < 600


@pytest.mark.parametrize(
    ("text", "seconds"), [("40ms", 0.04), ("0.5s", 0.5), (".5 s", 0.5), ("2min", 120.0), ("1.s", 1.0)]
)
def test_durations_have_units(text: str, seconds: float):
    assert parse_seconds("--budget", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["40", "0ms", "-1s", "1e3ms", "ms", "", "40 parsecs", "nan s"])
def test_a_time_without_a_unit_is_refused(text: str):
    with refusal("--budget: expected a time above 0 with its unit, such as 40ms", SettingsError):
        parse_seconds("--budget", text)


def test_every_how_many_is_a_whole_number_or_auto():
    assert (parse_every("auto"), parse_every("7")) == ("auto", 7)
    for text in ("0", "-1", "2.5", "often"):
        with refusal("--adapt-every: expected a whole number above 0 or auto", SettingsError):
            parse_every(text)


@pytest.mark.parametrize(("total", "split"), [(1, (1, 1)), (2, (1, 1)), (4, (3, 1)), (8, (6, 2)), (16, (12, 4))])
def test_threads_are_split(total: int, split: tuple[int, int]):
    assert split_threads(total) == split


def test_threads_come_back_and_the_cpu_has_no_stream():
    before = torch.get_num_threads()
    with thread_count(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with OwnStream(torch.device("cpu"), first=True).work():  # one of CUDA would raise where there is none
        assert not torch.cuda.is_initialized()


class Until(Source):
    """Pictures until so many states were handed over, so that a learner that takes its time to start has it."""

    label = "until"

    def __init__(self, states: int):
        self._states, self.live = states, None

    def connect(self) -> Iterator[Shot]:
        number = 0
        while self.live is not None and self.live.totals.states < self._states and number < 100_000:
            time.sleep(0.02)  # the learner has to start meanwhile
            yield Shot(make=lambda number=number: Frame.of(f"{number:06d}", picture(number), None))
            number += 1


class Decoding(Source):
    """Pictures that take their time, as where libav is at work: a process that ends meanwhile would abort."""

    label = "decoding"
    at_work = False

    def connect(self) -> Iterator[Shot]:
        for number in range(100):
            self.at_work = number > 0
            time.sleep(0.5 * self.at_work)
            self.at_work = False
            yield Shot(make=lambda: Frame.of("one", picture(0), None))


def test_a_run_ends_after_its_reader():
    source = Decoding()
    frames = iter(Live(source, Session(tiny(), "source"), every_frame=True))
    next(frames)
    while not source.at_work:
        time.sleep(0.001)
    frames.close()
    assert not source.at_work


OWN = """
from tiny import TinyNetwork, tiny


class Own(TinyNetwork):
    pass


def build():
    network = tiny().network
    network.__class__ = Own
    return network
"""


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.slow
def test_a_process_learns_what_a_thread_would(tmp_path: Path):
    (tmp_path / "mynets.py").write_text(OWN)  # a class that the process has to make again
    model = load_model(f"{tmp_path / 'mynets.py'}:build", classes=CLASSES)
    session, source, path = Session(model, "mall-domain"), Until(2), tmp_path / "run.jsonl"
    source.live = live = Live(source, session, every_frame=True, learner="process", record=path)
    states = [state_of(session)]
    shown = [frame for frame in live if frame.state or frame.index % 50 == 0 or not frame.why]
    again = Session(model, "mall-domain")
    learnt = [frame for frame in shown if not frame.why]
    assert len(learnt) == live.totals.learnt >= 2 and live.totals.dropped == 0
    for frame in learnt:
        assert again(frame.frame.image).decision.kind == "accepted"
        states.append(state_of(again))
    served = [frame for frame in shown if frame.state]
    assert served
    check = Session(model, "mall-domain")
    for frame in (*served, shown[0]):
        serve(check, states[frame.state])
        assert torch.equal(check.predict(frame.frame.image), frame.result.logits)
    now, then = state_of(session), state_of(again)  # the caller's session goes on from what was learnt
    assert now.updates == then.updates
    assert all(torch.equal(now.tensors[name], then.tensors[name]) for name in now.tensors)
    lines = read_json_lines(path)
    assert sum(line.get("adapted", False) for line in lines) == lines[-1]["learnt"] == len(learnt)
    assert lines[0]["learner"] == "process"


def test_what_the_learners_process_warns_of_and_logs_is_said_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (here, there), log = Pipe(), logging.getLogger("allweather")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    level, handlers = log.level, list(log.handlers)
    try:
        speak_through(there)
        warnings.showwarning(NcutAccuracyWarning("of 1 %", lambda: 0), NcutAccuracyWarning, "mall.py", 1)
        logging.getLogger("allweather.session").warning("rolled %s", "back")
        there.send("failed")
    finally:
        log.handlers[:] = handlers
        log.setLevel(level)
    caplog.clear()
    with pytest.warns(NcutAccuracyWarning, match="of 1 %"):
        assert heard(here) == "failed"
    assert caplog.messages == ["rolled back"]


def test_a_state_of_any_layout_is_packed_before_it_is_announced(monkeypatch: pytest.MonkeyPatch):
    session = Session(tiny(), MallDomain(parameters="all", views=("plain",)), channels_last=True)
    sent: list[Any] = []
    connection: Any = SimpleNamespace(send=sent.append, send_bytes=sent.append)
    process._answer_job(connection, session, 0, torch.rand(3, 24, 32).numpy())
    assert [type(each) for each in sent] == [tuple, bytes]
    monkeypatch.setattr(process, "save", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        process._answer_job(connection, session, 1, torch.rand(3, 24, 32).numpy())
    assert len(sent) == 2


def test_a_session_that_cannot_travel_is_told_to_stay():
    class Local(torch.nn.Conv2d):
        """A class that another process could not find."""

    network = Segmenter.wrap(Local(3, 3, 1), classes=tiny("none").classes)
    with refusal(r"cannot be taken to a process of its own .*Learn in a thread", SettingsError):
        ProcessPupil(Session(network, "source"), 1)


def test_a_record_on_a_full_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Full(StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    (path := tmp_path / "a.jsonl").touch()
    monkeypatch.setattr(record, "_create", lambda _: Full())
    with refusal(r"is complete\. Make room, and remove it or choose another --record\."):
        Record(path, {})
    assert not path.exists()


def test_layers_that_refuse_to_be_pickled_are_told_to_stay_and_leave_no_record(tmp_path: Path):
    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(3, 3, 1))
    network = Segmenter.wrap(torch.nn.Sequential(layer, torch.nn.BatchNorm2d(3)).eval(), classes=CLASSES)
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    live = Live(tmp_path, Session(network, "mall-domain"), record=tmp_path / "a.jsonl")
    with refusal(r"process of its own \(Serialization of parametrized .*Learn in a thread", SettingsError):
        next(iter(live))
    assert not (tmp_path / "a.jsonl").exists()
