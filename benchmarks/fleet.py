"""What merging sessions of a fleet gives and costs, and what one network that learns from all streams at once does.

    [ALLWEATHER_ASSETS=DIR] python -m benchmarks.fleet --json benchmarks/records/fleet.json.gz

Each stream's even frames are adapted to by MALL-domain; its odd frames, which nothing has learnt from, are then
predicted by the network as it stands (`Session.predict`): the source's, the stream's own session, the session of
another stream (the mean over all others), the merged session, and the network that learnt from all streams at once
under torchrun, a rank a stream. mIoU in % over all odd frames of a stream, classes in the truth.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL import Image

from allweather import CAMVID11, Segmenter, Session, load_model, methods
from allweather.data.labelled import LabelledStream, labelled_folders, labelled_scenes
from allweather.data.labels import mapping_between
from allweather.pictures.enlarge import labels_at
from allweather.runs.record import versions
from allweather.scale.fleet import merge
from allweather.scoring.confusion import ConfusionMatrix
from benchmarks.committed import benchmark_record, command, hand_out, markdown_table

WEATHER = ("fog", "rain", "snow", "night")
SEEDS = range(500_000, 500_024)  # as in plans: none of them trained or tuned anything
WEIGHTS, SIZE = "weights/espnetv2/espnetv2_s_0.5_city_512x256.pth", (480, 352)
COLUMNS = ("source", "own session", "another's session", "merged", "together")


@dataclass(frozen=True)
class Fleet:
    """Streams that sessions of one network go along."""

    model: str
    weights: Path | None
    streams: Mapping[str, LabelledStream]

    def network(self) -> Segmenter:
        """The base of them all."""
        return load_model(self.model, self.weights)


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--every", type=int, default=4, help="each so-manieth frame of CamVid")
    options = parser.parse_args()
    torch.set_num_threads(1)
    fleets = {"procedural": Fleet("demo:streetnet", None, {w: labelled_scenes(w, SEEDS, (256, 128)) for w in WEATHER})}
    if root := os.environ.get("ALLWEATHER_ASSETS"):
        fleets["camvid"] = camvid(Path(root), options.every)
    rows = {name: measure(fleet) for name, fleet in fleets.items()}
    record = {"benchmark": "fleet", "every": options.every, "fleets": rows, "versions": versions()}
    hand_out(record, options.json)


def camvid(root: Path, every: int) -> Fleet:
    """Dusk and day of CamVid."""
    streams = {}
    for split in ("dusk", "day"):
        folder = root / "camvid" / split
        whole = labelled_folders(folder / "images", folder / "labels", CAMVID11, SIZE)
        streams[split] = whole.every(every)
    return Fleet("espnetv2:0.5", root / WEIGHTS, streams)


def measure(fleet: Fleet) -> dict[str, Any]:
    """mIoU of every way on every stream, and how far apart the sessions came."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {stream: folder / f"{stream}.safetensors" for stream in fleet.streams}
        sessions = {stream: learn(fleet, labelled, files[stream]) for stream, labelled in fleet.streams.items()}
        merged = merge(list(files.values()), folder / "merged.safetensors")
        ways = sessions | {
            "source": session_of(fleet, "source"),
            "merged": opened(fleet, folder / "merged.safetensors"),
            "together": opened(fleet, together(fleet, folder)),
        }
        streams = {stream: figures(stream, sessions, ways, labelled) for stream, labelled in fleet.streams.items()}
    return {"model": fleet.model, "apart": round(merged.apart, 5), "updates": merged.updates, "streams": streams}


def figures(
    stream: str, sessions: Mapping[str, Session], ways: Mapping[str, Session], labelled: LabelledStream
) -> dict[str, float]:
    """mIoU in % of a stream's odd frames by every way."""
    others = [score(session, labelled) for name, session in sessions.items() if name != stream]
    made = {
        "source": score(ways["source"], labelled),
        "own session": score(sessions[stream], labelled),
        "another's session": mean(others),
        "merged": score(ways["merged"], labelled),
        "together": score(ways["together"], labelled),
    }
    return {"frames": len(labelled.stream) // 2, **{name: round(value, 2) for name, value in made.items()}}


def session_of(fleet: Fleet, method: str) -> Session:
    """A fresh session."""
    network = fleet.network()
    return Session(network, methods.make(method, model=network))


def learn(fleet: Fleet, labelled: LabelledStream, path: Path) -> Session:
    """A session along the even frames, kept in a file too."""
    session = session_of(fleet, "mall-domain")
    for name in labelled.stream.names[::2]:
        session(labelled.stream.read(name).image)
    session.save(path)
    return session


def opened(fleet: Fleet, path: Path) -> Session:
    """The session of a file."""
    session = session_of(fleet, "mall-domain")
    session.load(path)
    return session


def together(fleet: Fleet, folder: Path) -> Path:
    """One network that learns from the even frames of all streams, a rank each; the session's file."""
    for stream, labelled in fleet.streams.items():
        (folder / "frames" / stream).mkdir(parents=True)
        for index, name in enumerate(labelled.stream.names[::2]):
            pixels = (labelled.stream.read(name).image * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / "frames" / stream / f"{index:04d}.png")
    inputs = [str(folder / "frames" / stream) for stream in fleet.streams]
    weights = [] if fleet.weights is None else ["--weights", str(fleet.weights)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(len(inputs)), "-m", "allweather"]
    options = ["--model", fleet.model, *weights, "--size", "native", "--write", "labels", "--out", str(folder / "out")]
    subprocess.run([*launch, "adapt", *inputs, *options], check=True)
    return folder / "out" / "sessions" / "together.safetensors"


def score(session: Session, labelled: LabelledStream) -> float:
    """mIoU in % of the odd frames, predicted by the network as it stands."""
    mapping = mapping_between(session.model.classes, labelled.classes)
    classes, matrix = np.asarray(mapping.table), ConfusionMatrix(len(mapping.truth))
    for name in labelled.stream.names[1::2]:
        truth, logits = labelled.truth(name).labels, session.predict(labelled.stream.read(name).image)
        matrix.update(classes[labels_at(logits, (truth.shape[1], truth.shape[0]))], truth)
    return 100 * float(matrix.mean_iou_truth)


def table() -> str:
    """The record, one row a stream."""
    found = benchmark_record("fleet.json.gz")
    if found is None:
        return "not measured"
    rows, notes = [], []
    for name, fleet in found["fleets"].items():
        for stream, row in fleet["streams"].items():
            rows.append([f"{name}, {stream}", str(row["frames"]), *_cells(row)])
        average = {column: mean(row[column] for row in fleet["streams"].values()) for column in COLUMNS}
        rows.append([f"{name}, mean", "", *_cells(average)])
        notes.append(f"{name}: {fleet['model']}, {fleet['updates']} updates in all, {fleet['apart']:.2%} apart")
    about = f"mIoU in %. {'; '.join(notes)}. CamVid: every {found['every']}th frame. {found['versions']['machine']}."
    return f"{markdown_table(['fleet, stream', 'odd frames', *COLUMNS], rows)}\n\n{about}"


def _cells(row: Mapping[str, float]) -> list[str]:
    return [f"{row[column]:.2f}" for column in COLUMNS]


if __name__ == "__main__":
    main()
