"""Streams of tiny frames, a session's makings for workers, and runs over them that tests share."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tiny import tiny

from allweather import Session, methods
from allweather.app.pictures import Pictures
from allweather.app.spread import stretches
from allweather.data.scenes import scene_stream
from allweather.scale.carried import Carried
from allweather.scale.conduct import Conducted, Conductor
from allweather.scale.merged import MergedRecord
from allweather.scale.pool import Pool
from allweather.scale.processes import ProcessPool
from allweather.scale.streams import Source, split
from allweather.scale.work import Adapting, Line, Stretch

WEATHER = ("fog", "rain", "snow", "night", "overcast", "clear")
SIZE = (48, 32)
SETTINGS: dict[str, Any] = {"mall-domain": {"lr": 1e-3}, "mall-sample": {}, "memo": {}}


def paint(folder: Path, counts: Mapping[str, int]) -> list[Path]:
    """A folder of procedural frames for each stream; names that are no weather are clear."""
    for place, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        weather = name if name in WEATHER else "clear"
        for number, frame in enumerate(scene_stream(weather, range(100 * place, 100 * place + count), SIZE)):
            pixels = (frame.image * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.png")
    return [folder / name for name in counts]


@dataclass(frozen=True)
class Deadly:
    """Writes pictures, and kills its own process with SIGKILL at a frame: once, or whenever it comes."""

    write: Pictures
    name: str
    once: Path | None = None

    def __call__(self, outcome: Any, classes: Any) -> Line:
        if outcome.name == self.name and outcome.failure is None and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.write(outcome, classes)


def session_of(method: str, **options: Any) -> Session:
    return Session(tiny(), methods.make(method, settings=SETTINGS.get(method, {})), **options)


def task_of(out: Path, method: str, write: Any = None, **more: Any) -> Adapting:
    out.mkdir(parents=True, exist_ok=True)
    (out / ".seen").touch()
    made = methods.make(method, settings=SETTINGS.get(method, {}))
    carried = Carried.pack(tiny(), made, {"seed": 0}, "cpu", 1)
    return Adapting(carried, write or Pictures(out, ("labels",)), out, ".seen", **more)


def conduct(pool: Pool, sources: list[Source], record: MergedRecord, apart: bool, keep: Any = None) -> Conducted:
    """Does all streams with a pool; `keep` hears the lines too."""

    def kept(lines: list[Line]):
        record.keep(lines)
        if keep:
            keep(lines)

    def again(job: Stretch, refused: Mapping[str, str]) -> Stretch:
        return job.again(record.known_of(job.source), refused)

    return Conductor(pool, kept, again).run(stretches(sources, record, apart, 1))


def spread(
    inputs: list[Path], out: Path, method: str, workers: int = 2, write: Any = None, keep: Any = None, **more: Any
) -> tuple[MergedRecord, Conducted]:
    """Adapts along every input's stream with so many processes."""
    sources = split(inputs)
    task = task_of(out, method, write, **more)
    with (
        MergedRecord(out, {"run": method}, True, Pictures(out, ("labels",)).is_whole) as record,
        ProcessPool(task, workers) as pool,
    ):
        conducted = conduct(pool, sources, record, session_of(method).method.episodic, keep and keep(pool))
    return record, conducted


def alone(inputs: list[Path], method: str) -> dict[str, np.ndarray]:
    """The labels of every frame by a session in this process, a stream after the other."""
    found = {}
    for source in split(inputs):
        session = session_of(method)
        for frame in source.open(None):
            found[frame.name] = session(frame.image).labels.numpy()
    return found


def labels(out: Path, names: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(Image.open(out / f"labels/{name}.png")) for name in names}


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Whether both have the same frames with the same labels."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
