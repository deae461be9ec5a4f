"""What live costs and keeps: its rate and latency beside plain prediction, and its share of MALL-domain's gain.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.live --json FILE

ESPNetv2 0.5 at 512×256 on CamVid's dusk frames, played twice; one thread predicts and one learns, and plain prediction
has one thread too. Plain prediction is the same session's prediction with nothing beside it, timed before and after
each live run. The rate and the gain are those of one run in which every frame is predicted as soon as the one before
it is done; the latency is that of frames that come at the pace of plain prediction with a third of the time left over.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allweather import Session, load_model, methods
from allweather.data.folder import open_files
from allweather.data.images import read_labels
from allweather.data.labels import find_mapping
from allweather.data.stream import Frame
from allweather.live import Live
from allweather.live.sources import Shot, Source
from allweather.models import Segmenter
from allweather.pictures.enlarge import labels_at
from allweather.runs.record import versions
from allweather.scoring.confusion import ConfusionMatrix

SIZE = (512, 256)
SETTINGS: dict[str, dict[str, Any]] = {"mall-domain": {}, "mall-domain, mirror=false": {"mirror": False}}
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="each so-manieth frame, to try things")
    parser.add_argument("--json", type=Path)
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
        "source": {"mIoU": source, "ms": _milliseconds(plain_times(session_of(network, "source", {}), frames))},
        "mall-domain": {"mIoU": online}, "rows": rows, "load_before": round(load, 2), "versions": versions(),
    }  # fmt: skip
    text = json.dumps(record, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


def session_of(network: Segmenter, name: str, fields: dict[str, Any]) -> Session:
    """A fresh session of a method with fields of its own."""
    return Session(network, methods.make(name, settings=fields, model=network))


def measure(network: Segmenter, fields: dict[str, Any], frames: Sequence[Frame], truth: Truth) -> dict[str, Any]:
    """Rate, latency and mIoU of one setting."""

    def session() -> Session:
        return session_of(network, "mall-domain", fields)

    before = plain_times(session(), frames)
    live = Live(Frames(frames), session(), every_frame=True, threads=(1, 1))
    predictions, seconds = [], []
    last = None
    for shown in live:
        predictions.append((shown.frame, shown.result.logits.half()))
        now = perf_counter()
        if shown.state and last is not None:  # once the learner has started and learns beside the predictions
            seconds.append(now - last)
        last = now
    after = plain_times(session(), frames)
    plain = [*before, *after]
    rate, beside = (len(times) / sum(times) for times in (plain, seconds))
    paced = Live(Frames(frames[: 2 * TIMED], 1.5 / rate), session(), threads=(1, 1))
    latencies = [shown.latency for shown in paced if shown.state]
    return {
        "plain_per_second": round(rate, 2),
        "live_per_second": round(beside, 2),
        "rate_kept": round(beside / rate, 3),
        "plain_p95_ms": _late(plain),
        "live_p95_ms": _late(latencies),
        "latency_ratio": round(_late(latencies) / _late(plain), 3),
        "mIoU": truth.mean_iou(predictions),
        "learnt": live.totals.learnt,
        "decisions": dict(live.totals.decisions),
    }


def plain_times(session: Session, frames: Sequence[Frame]) -> list[float]:
    """Seconds of each prediction with nothing beside it."""
    session.predict(frames[0].image)
    times = []
    for frame in frames[:TIMED]:
        started = perf_counter()
        session.predict(frame.image)
        times.append(perf_counter() - started)
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
