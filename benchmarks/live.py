"""What live costs and keeps: its rate and latency beside plain prediction, and its share of MALL-domain's gain.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.live --json FILE

ESPNetv2 0.5 at 512×256 on CamVid's dusk frames, played twice; one thread predicts and one learns, and plain prediction
has one thread too. Plain prediction is the same session's prediction with nothing beside it, timed before and after
each live run. The rate and the gain are those of one run in which every frame is predicted as soon as the one before
it is done; the latency is that of frames that come at the pace of plain prediction with a third of the time left over.
The rate by the predicting thread's own CPU time is recorded too: it hardly changes where other programs take turns.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allweather import Frame, Live, Segmenter, Session, load_model, methods
from allweather.data.folder import open_files
from allweather.data.images import read_labels
from allweather.data.labels import find_mapping
from allweather.live.sources import Shot, Source
from allweather.pictures.enlarge import labels_at
from allweather.runs.record import versions
from allweather.scoring.confusion import ConfusionMatrix
from benchmarks.committed import command, hand_out

SIZE = (512, 256)
SETTINGS: dict[str, dict[str, Any]] = {"mall-domain": {}, "mall-domain, views=plain": {"views": ("plain",)}}
TIMED = 60  # frames of plain prediction before and after each run, and of the run that measures latency


class Frames(Source):
    """Frames that are in memory, each due after an interval."""

    label = "CamVid dusk"

    def __init__(self, frames: Sequence[Frame], interval: float = 0.0) -> None:
        self._frames, self._interval, self.total = frames, interval, len(frames)

    def connect(self) -> Iterator[Shot]:
        for index, frame in enumerate(self._frames):
            yield Shot(index * self._interval, lambda frame=frame: frame)


class Truth:
    """The labels of the dusk frames, in CamVid's classes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._mapping = folder, find_mapping("cityscapes-camvid11")
        self._table = np.asarray(self._mapping.table)

    def mean_iou(self, predictions: Sequence[tuple[Frame, Tensor]]) -> float:
        """mIoU in % over all frames together, at their own size."""
        matrix = ConfusionMatrix(len(self._mapping.truth))
        for frame, logits in predictions:
            path = self._folder / f"{frame.name}.png"
            truth = self._mapping.labels(read_labels(path), path)
            matrix.update(self._table[labels_at(logits.float(), frame.size)], truth)
        return round(100 * matrix.mean_iou, 2)


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--every", type=int, default=1, help="each so-manieth frame, to try things")
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(os.environ["ALLWEATHER_ASSETS"])
    network = load_model("espnetv2:0.5", root / "weights" / "espnetv2" / "espnetv2_s_0.5_city_512x256.pth")
    stream = open_files([root / "camvid" / "dusk" / "images"], SIZE)
    frames = [stream.read(name) for name in stream.names[:: options.every]] * 2
    truth, load = Truth(root / "camvid" / "dusk" / "labels"), os.getloadavg()[0]
    source, online = (_along(session_of(network, name, {}), frames, truth) for name in ("source", "mall-domain"))
    gain = online - source
    rows = {name: measure(network, fields, frames, truth) for name, fields in SETTINGS.items()}
    for row in rows.values():
        row["gain_kept"] = round((row["mIoU"] - source) / gain, 3)
    record = {
        "benchmark": "live", "model": "espnetv2:0.5", "size": "512x256", "frames": len(frames), "threads": [1, 1],
        "source": {"mIoU": source, "ms": _milliseconds(plain_times(session_of(network, "source", {}), frames).wall)},
        "mall-domain": {"mIoU": online}, "rows": rows, "load_before": round(load, 2), "versions": versions(),
    }  # fmt: skip
    hand_out(record, options.json)


def session_of(network: Segmenter, name: str, fields: dict[str, Any]) -> Session:
    """A fresh session of a method with fields of its own."""
    return Session(network, methods.make(name, settings=fields, model=network))


def measure(network: Segmenter, fields: dict[str, Any], frames: Sequence[Frame], truth: Truth) -> dict[str, Any]:
    """Rate, latency and mIoU of one setting."""

    def session() -> Session:
        return session_of(network, "mall-domain", fields)

    before = plain_times(session(), frames)
    live = Live(Frames(frames), session(), every_frame=True, threads=(1, 1))
    predictions, beside = [], Times()
    for shown in live:
        predictions.append((shown.frame, shown.result.logits.half()))
        if shown.state:  # once the learner has started and learns beside the predictions
            beside.lap()
        else:
            beside.start()
    plain = before + plain_times(session(), frames)
    rate = plain.rate
    paced = Live(Frames(frames[: 2 * TIMED], 1.5 / rate), session(), threads=(1, 1))
    latencies = [shown.latency for shown in paced if shown.state]
    return {
        "plain_per_second": round(rate, 2),
        "live_per_second": round(beside.rate, 2),
        "rate_kept": round(beside.rate / rate, 3),
        "rate_kept_by_cpu_time": round(plain.cpu / beside.cpu, 3),
        "plain_p95_ms": _late(plain.wall),
        "live_p95_ms": _late(latencies),
        "latency_ratio": round(_late(latencies) / _late(plain.wall), 3),
        "mIoU": truth.mean_iou(predictions),
        "learnt": live.totals.learnt,
        "decisions": dict(live.totals.decisions),
    }


@dataclass
class Times:
    """Seconds of laps, by the clock and of this thread's CPU time."""

    laps: list[tuple[float, float]] = field(default_factory=list)
    _last: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        """The first lap begins."""
        self._last = perf_counter(), thread_time()

    def lap(self) -> None:
        """A lap ends and the next one begins."""
        before = self._last
        self.start()
        self.laps.append((self._last[0] - before[0], self._last[1] - before[1]))

    def __add__(self, other: "Times") -> "Times":
        return Times([*self.laps, *other.laps])

    @property
    def wall(self) -> list[float]:
        """Of each lap, by the clock."""
        return [wall for wall, _ in self.laps]

    @property
    def rate(self) -> float:
        """Laps per second."""
        return len(self.laps) / sum(self.wall)

    @property
    def cpu(self) -> float:
        """CPU seconds of a lap."""
        return sum(cpu for _, cpu in self.laps) / len(self.laps)


def plain_times(session: Session, frames: Sequence[Frame]) -> Times:
    """Of each prediction with nothing beside it."""
    session.predict(frames[0].image)
    times = Times()
    times.start()
    for frame in frames[:TIMED]:
        session.predict(frame.image)
        times.lap()
    return times


def _along(session: Session, frames: Sequence[Frame], truth: Truth) -> float:
    """mIoU of the folder run: adapt to each frame, and score the prediction made then."""
    return truth.mean_iou([(frame, session(frame.image).logits.half()) for frame in frames])


def _late(times: Sequence[float]) -> float:
    return round(1000 * quantiles(times, n=20)[-1], 1)


def _milliseconds(times: Sequence[float]) -> float:
    return round(1000 * sum(times) / len(times), 1)


if __name__ == "__main__":
    main()
