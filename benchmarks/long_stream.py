"""Three thousand procedural frames in weather that comes and goes, without a reset: does a method decay?

    ALLWEATHER_ASSETS=DIR python -m benchmarks.long_stream --json FILE [--networks NAME,…] [--methods NAME,…] [--again]

Every frame is a scene of its own. Six kinds of weather come up, are strongest half-way and go again, a hundred frames
each; that makes a pass, and five passes follow each other. Every method predicts the plain view (others cost much and
move nothing); those that could return to the source after each image do not. What the file holds already is kept, and
beside it, after every hundred frames, the session under way, so a run that stopped goes on from there.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allweather import CITYSCAPES, Session, load_model, methods
from allweather.data.images import write_json
from allweather.data.scenes import render
from allweather.pictures.enlarge import labels_at
from allweather.report.refusals import in_words
from allweather.runs.record import versions
from allweather.scoring.confusion import ConfusionMatrix
from allweather.session.guard import KINDS, Kind
from benchmarks.committed import benchmark_record, command, hand_out, load, markdown_table
from benchmarks.packed import spell_lines

RECORD = "long-stream.json.gz"
FRAMES, EACH, SIZE = 3000, 100, (256, 128)  # frames in all, of each weather in a pass; width, height
WEATHER = ("clear", "fog", "night", "rain", "snow", "overcast")
PASS = EACH * len(WEATHER)
SEEDS = 700_000  # the first scene's; none of them trained or tuned anything
NETWORKS = {
    "demo:streetnet": None,
    "espnetv2:0.5": "espnetv2/espnetv2_s_0.5_city_512x256.pth",
    "espnetv2:1.0": "espnetv2/espnetv2_s_1.0_city_512x256.pth",
    "realtime:edanet": "realtime/edanet_city.pth",
}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "source": {},
    "tent": {"episodic": False},
    "cotta": {},
    "rotta": {},
    "mall-domain": {"views": ("plain",)},
}


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--again", action="store_true", help="measure what the file holds anew, of a recipe of before")
    options = parser.parse_args()
    kept = _read_kept(options.json, options.frames)
    for name in options.networks.split(","):
        for label in options.methods.split(","):
            rows = kept.setdefault(name, {})
            if options.again or label not in rows:
                progress = None if options.json is None else Progress(options.json, f"{name}.{label}")
                rows[label] = measure(name, label, options.frames, progress)
                kept[name] = {method: rows[method] for method in METHODS if method in rows}
                head = {"benchmark": "long-stream", "frames": options.frames, "pass": PASS, "versions": versions()}
                hand_out(spell_lines({**head, "networks": kept}), options.json)
                if progress is not None:
                    progress.forget()


def _read_kept(path: Path | None, frames: int) -> dict[str, dict[str, Any]]:
    """What the file holds by network and method."""
    if path is None or not path.exists():
        return {}
    record = load(path)
    if record["frames"] != frames:
        raise SystemExit(f"{path} holds streams of {record['frames']} frames, not {frames}: name another file.")
    found: dict[str, dict[str, Any]] = record["networks"]
    return found


class Progress:
    """What is done of one method's run, beside the benchmark's file: the session, and what came of its frames.

    Args:
        beside: the benchmark's file.
        run: the run's name among those of the file.
    """

    def __init__(self, beside: Path, run: str) -> None:
        self._folder, self._stem = beside.parent, f".{beside.stem}.{run.replace(':', '-')}"
        self._figures = self._folder / f"{self._stem}.json"

    def keep(self, session: Session, done: int, figures: Mapping[str, Any]) -> None:
        """Replaces what was kept before; whatever interrupts it, one of the two is there whole."""
        place = self._folder / f"{self._stem}.{done}.safetensors"
        session.save(place)
        write_json(self._figures, {"done": done, "session": place.name, **figures})
        for other in set(self._sessions()) - {place}:
            other.unlink()

    def take_up(self, session: Session) -> dict[str, Any]:
        """Brings the session to where it was and gives what was kept with it; nothing where nothing was."""
        if not self._figures.exists():
            return {}
        found: dict[str, Any] = json.loads(self._figures.read_text())
        session.load(self._folder / found["session"])
        return found

    def forget(self) -> None:
        """Removes what was kept."""
        for path in (self._figures, *self._sessions()):
            path.unlink(missing_ok=True)

    def _sessions(self) -> list[Path]:
        return list(self._folder.glob(f"{self._stem}.*.safetensors"))


def measure(name: str, label: str, frames: int, progress: Progress | None = None) -> dict[str, Any]:
    """The method's mIoU in % over each pass, and its decisions; `progress` keeps what is done, None nothing."""
    torch.manual_seed(0)
    weights = NETWORKS[name]
    path = None if weights is None else Path(os.environ["ALLWEATHER_ASSETS"]) / "weights" / weights
    model = load_model(name, weights=path)
    session = Session(model, methods.make(label, settings=METHODS[label], model=model))
    earlier = {} if progress is None else progress.take_up(session)
    start, decisions = earlier.get("done", 0), Counter[Kind](earlier.get("decisions", {}))
    counts = earlier.get("counts", [[]] * len(range(0, frames, PASS)))
    matrices = [ConfusionMatrix(len(CITYSCAPES), np.array(each)) for each in counts]
    for number, (image, truth) in enumerate(drive(frames, start), start):
        result = session(image)
        decisions[result.decision.kind] += 1
        matrices[number // PASS].update(labels_at(result.logits, SIZE).astype(int), truth)
        if number % EACH == EACH - 1:
            print(name, label, number + 1, round(100 * matrices[number // PASS].mean_iou, 1), flush=True)
            if progress is not None:
                kept = {"decisions": decisions, "counts": [matrix.counts.tolist() for matrix in matrices]}
                progress.keep(session, number + 1, kept)
    decided = {kind: decisions[kind] for kind in KINDS}
    return {"mIoU": [round(100 * matrix.mean_iou, 2) for matrix in matrices], "decisions": decided}


def drive(frames: int, start: int = 0) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Images 3×H×W in [0, 1] as eight bits hold them, and their labels H×W, which only scoring sees."""
    for number in range(start, frames):
        weather = WEATHER[number // EACH % len(WEATHER)]
        strength = math.sin(math.pi * (number % EACH + 0.5) / EACH)
        pixels, labels = _rendered(SEEDS + number, weather, SIZE, strength)
        yield torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1).contiguous(), labels.astype(int)


@cache  # 3,000 take 400 MB, and as long to render as a network of this size takes to predict them
def _rendered(seed: int, weather: str, size: tuple[int, int], strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixels H×W×3 and labels H×W, bytes."""
    scene = render(seed, weather, size, strength)
    return np.round(scene.rgb * 255).astype(np.uint8), scene.labels.astype(np.uint8)


def table() -> str:
    """Each method's mIoU over the source in every pass, and what the last lost or won to the first."""
    record = benchmark_record(RECORD)
    if record is None:
        return "not measured"
    networks = record["networks"]
    rows = []
    for network, found in networks.items():
        for label, row in found.items():
            gains = [value - source for value, source in zip(row["mIoU"], found["source"]["mIoU"], strict=True)]
            shown = (
                (f"{value:.2f}" for value in row["mIoU"]) if label == "source" else (f"{gain:+.2f}" for gain in gains)
            )
            change = "" if label == "source" else f"{gains[-1] - gains[0]:+.2f}"
            rows.append([network, label, *shown, change, in_words([row["decisions"]]) or "none"])
    passes = len(rows[0]) - 4
    heads = ["network", "method", *(f"pass {number}" for number in range(1, passes + 1)), "last − first"]
    return markdown_table([*heads, "frames that the guard changed"], rows)


if __name__ == "__main__":
    main()
