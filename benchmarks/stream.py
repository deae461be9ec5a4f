"""Frames per second of plain inference and of online adaptation along a video, with the slowest frame's latency.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.stream --json FILE

CamVid's video frames with a real network where ALLWEATHER_ASSETS is set, else a procedural drive with the shipped one.
Every method sees the same frames after one warm-up frame; each starts from the source network.
"""

import argparse
import os
import subprocess
import sys
import warnings
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from allweather import Session, load_model, methods
from allweather.app.options import parse_size
from allweather.data.folder import open_files
from allweather.data.scenes import scene_stream
from allweather.runs.record import versions
from benchmarks.committed import hand_out

METHODS = ("source", "norm", "tent", "mall-sample", "mall-domain")
WEIGHTS = "weights/espnetv2/espnetv2_s_{}_city_512x256.pth"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="espnetv2:1.0 with its weights where the assets are, else demo:streetnet")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", default="480x352")
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tests = [sys.executable, "-m", "pytest", "-q", "-x", "tests/test_session.py"]
    if subprocess.run(tests, stdout=sys.stderr).returncode:
        sys.exit("The session's tests fail; nothing is timed until they pass.")
    model, weights, frames, source = _inputs(options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights take as long
        network = load_model(model, weights).to(options.device)
    rows = {}
    for name in METHODS:
        method = methods.make(name, model=network)
        rows[name] = measure(Session(network, method, precision=options.precision), frames)
    record = {
        "benchmark": "stream", "model": model, "frames": len(frames), "of": source, "size": options.size,
        "precision": options.precision, "device": options.device, "rows": rows, "versions": versions(),
    }  # fmt: skip
    hand_out(record, options.json)


def measure(session: Session, frames: list[Tensor]) -> dict[str, float]:
    """Latency of each frame from its arrival to its prediction."""
    session(frames[0])
    session.reset()
    seconds = []
    for frame in frames:
        started = perf_counter()
        labels = session(frame).labels
        labels[0, 0].item()  # waits for the device
        seconds.append(perf_counter() - started)
    return {
        "frames_per_second": round(len(seconds) / sum(seconds), 2),
        "median_ms": round(1000 * median(seconds), 1),
        "worst_ms": round(1000 * max(seconds), 1),
    }


def _inputs(options: argparse.Namespace) -> tuple[str, Path | None, list[Tensor], str]:
    root, size = os.environ.get("ALLWEATHER_ASSETS"), parse_size(options.size)
    if root is None:
        stream = scene_stream("rain", range(options.frames), size or (480, 352))
        frames = [frame.image.to(options.device) for frame in stream]
        return options.model or "demo:streetnet", options.weights, frames, "procedural rain"
    stream = open_files([Path(root) / "camvid" / "video" / "images"], size)
    frames = [stream.read(name).image.to(options.device) for name in stream.names[: options.frames]]
    if options.model:
        return options.model, options.weights, frames, "CamVid video"
    return "espnetv2:1.0", Path(root) / WEIGHTS.format("1.0"), frames, "CamVid video"


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
