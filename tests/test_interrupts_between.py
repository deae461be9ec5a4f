"""Ctrl-C in the middle of what has to be done whole: nothing is lost, nothing lies, and it is heard afterwards."""

import os
import signal
from multiprocessing import Pipe
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest
import torch
from tiny import frames, tiny

from allweather import Session
from allweather.pictures import film as films
from allweather.pictures.growing import GrowingFile
from allweather.runs.overlap import Behind
from allweather.scale.processes import ProcessPool, _Process
from allweather.session.adapted import AdaptedNetwork
from allweather.session.averages import StreamAverages
from allweather.writing import whole_folder

pytestmark = pytest.mark.usefixtures("hears_interrupts")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("moment", [2, 5, -1])
def test_a_film_has_every_frame_wherever_its_writing_is_interrupted(
    moment: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def write(path: Path, moment: int) -> tuple[int, int]:
        """Frames added until it was interrupted at that write to the disk, and the writes."""
        writes = 0

        class Interrupted(GrowingFile):
            def write(self, content: bytes) -> int:
                nonlocal writes
                writes += 1
                if writes == moment:
                    signal.raise_signal(signal.SIGINT)
                return super().write(content)

        monkeypatch.setattr(films, "GrowingFile", Interrupted)
        random = np.random.default_rng(0)
        with films.Film(path, 25, 128, 96) as film:
            for _ in range(60):
                film.write(random.integers(0, 255, (96, 128, 3), dtype=np.uint8))
        return film.written, writes

    _, writes = write(tmp_path / f"whole{suffix}", 0)
    path = tmp_path / f"interrupted{suffix}"
    with pytest.raises(KeyboardInterrupt):
        write(path, moment if moment > 0 else writes)
    with av.open(str(path)) as found:
        assert sum(1 for _ in found.decode(video=0)) >= (60 if moment < 0 else 1)


def test_what_is_kept_in_order_is_kept_to_the_end_at_a_second_ctrl_c():
    kept: list[int] = []

    def work(item: int) -> int:
        if item == 2:
            signal.raise_signal(signal.SIGINT)  # taken by the main thread, which waits for this one
        Event().wait(0.05)
        return item

    def interrupted():
        with Behind(work, kept.append, 1) as behind:
            for item in range(5):
                behind.put(item, 1)
            raise KeyboardInterrupt  # the first one

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert kept == list(range(5))


@pytest.mark.parametrize("moment", [1, 50])
def test_a_folder_in_whose_place_another_comes_is_there_whole(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    unlink, path, count = os.unlink, tmp_path / "labels", 0

    def interrupted(*given: Any, **named: Any):
        nonlocal count
        count += 1
        if count == moment:
            signal.raise_signal(signal.SIGINT)
        unlink(*given, **named)

    def fill(content: str):
        with whole_folder(path) as folder:
            folder.mkdir()
            for number in range(100):
                (folder / f"{number}.png").write_text(content)

    fill("old")
    monkeypatch.setattr(os, "unlink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill("new")
    monkeypatch.undo()
    assert [file.read_text() for file in path.iterdir()] == ["new"] * 100
    fill("newer")
    assert [file.name for file in tmp_path.iterdir()] == ["labels"]


def test_a_folder_that_was_moved_aside_comes_back(tmp_path: Path):
    (tmp_path / ".labels.old").mkdir()
    (tmp_path / ".labels.old/a.png").write_text("old")
    with whole_folder(tmp_path / "labels"):
        pass  # it makes none
    assert (tmp_path / "labels/a.png").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("method", "part"), [("tent", AdaptedNetwork), ("mall-domain", StreamAverages)])
def test_a_session_is_before_a_batch_or_after_it(method: str, part: Any, monkeypatch: pytest.MonkeyPatch):
    images = frames(3)
    session, other = (Session(tiny(), method, guard=False) for _ in range(2))
    session(images[0]), other(images[0])
    name = "restore" if part is AdaptedNetwork else "take"
    plain = getattr(part, name)

    def interrupted(*given: Any):
        signal.raise_signal(signal.SIGINT)
        plain(*given)

    monkeypatch.setattr(part, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        session(images[1])
    monkeypatch.undo()
    other(images[1])
    assert torch.equal(session(images[2]).logits, other(images[2]).logits)


def test_a_message_to_a_worker_is_sent_whole(monkeypatch: pytest.MonkeyPatch):
    here, there = Pipe()

    class Interrupted:
        def send(self, message: Any):
            signal.raise_signal(signal.SIGINT)
            here.send(message)

    pool = ProcessPool.__new__(ProcessPool)
    pool._workers = [_Process(None, Interrupted())]
    with pytest.raises(KeyboardInterrupt):
        pool.begin("a job")
    assert there.recv() == "a job"
