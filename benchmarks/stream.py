"""What a frame costs along a video, method by method, as a ratio to the source network's own: latency, in turns.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.stream --json FILE

CamVid's video frames where ALLWEATHER_ASSETS is set, and ESPNetv2 2.0 with its weights, then networks with random ones;
else a procedural drive with the shipped network. Every frame is given to each method in turn, so that a machine whose
speed drifts slows them alike. Means are over the second half of the frames, when the guard compares rarely; a ratio has
the source's mean of the same run below it. The worst frame is of all, the comparisons at the beginning included.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from allweather import Segmenter, Session, keep_freed_memory, load_model, methods
from allweather.app.options import parse_size
from allweather.data.folder import open_files
from allweather.data.scenes import scene_stream
from allweather.runs.record import versions
from benchmarks.committed import command, hand_out
from benchmarks.operator_tests import need_sound_operator

TWO_VIEWS = {"views": ("plain", "mirror")}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "source": ("source", "recommended", {}),
    "norm": ("norm", "recommended", {}),
    "tent": ("tent", "recommended", {}),
    "mall-domain fast": ("mall-domain", "fast", {}),
    "mall-sample, views plain,mirror": ("mall-sample", "recommended", TWO_VIEWS),
    "mall-domain, views plain,mirror": ("mall-domain", "recommended", TWO_VIEWS),
    "mall-sample": ("mall-sample", "recommended", {}),
    "mall-domain": ("mall-domain", "recommended", {}),
    "mall-domain best": ("mall-domain", "best", {}),
}
NETWORKS = {  # and their weights below ALLWEATHER_ASSETS; random ones take as long
    "espnetv2:2.0": "weights/espnetv2/espnetv2_s_2.0_city_512x256.pth",
    "deeplabv3plus:mobilenet-os16": None,
    "segformer:b0": None,
}


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--networks", help=f"along CamVid's video alone; {','.join(NETWORKS)} where not given")
    parser.add_argument("--size", default="480x352")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    options = parser.parse_args()
    need_sound_operator("tests/test_session.py")
    networks, frames, source = _inputs(options)
    found = {}
    for name, weights in networks.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # random weights are meant
            network = load_model(name, weights).to(options.device)
        found[name] = {"weights": weights and weights.name, "rows": measure(network, frames, options.precision)}
        print(name, found[name], file=sys.stderr, flush=True)
    record = {
        "benchmark": "stream", "networks": found, "frames": len(frames), "of": source, "size": options.size,
        "precision": options.precision, "device": options.device, "versions": versions(),
    }  # fmt: skip
    hand_out(record, options.json)


def measure(
    network: Segmenter, frames: list[Tensor], precision: Any = "float32", cases: Mapping[str, Any] = CASES
) -> dict[str, dict[str, float]]:
    """Milliseconds from each frame's arrival to its prediction; one frame of each case warms up."""
    sessions = {
        case: Session(network, methods.make(name, preset, fields, model=network), precision=precision)
        for case, (name, preset, fields) in cases.items()
    }
    for session in sessions.values():
        session(frames[0])
        session.reset()
    taken: dict[str, list[float]] = {case: [] for case in sessions}
    for frame in frames:
        for case, session in sessions.items():
            started = perf_counter()
            session(frame).labels[0, 0].item()  # waits for the device
            taken[case].append(1000 * (perf_counter() - started))
    late = {case: times[len(times) // 2 :] for case, times in taken.items()}
    return {
        case: {
            "mean_ms": round(mean(late[case]), 1),
            "ratio": round(mean(late[case]) / mean(late["source"]), 2),
            "median_ms": round(median(times), 1),
            "worst_ms": round(max(times), 1),
        }
        for case, times in taken.items()
    }


def _inputs(options: argparse.Namespace) -> tuple[dict[str, Path | None], list[Tensor], str]:
    root, size = os.environ.get("ALLWEATHER_ASSETS"), parse_size(options.size)
    if root is None:
        if options.networks:
            sys.exit("--networks go along CamVid's video: set ALLWEATHER_ASSETS to the folder that holds camvid/.")
        stream = scene_stream("rain", range(options.frames), size or (480, 352))
        return {"demo:streetnet": None}, [frame.image.to(options.device) for frame in stream], "procedural rain"
    stream = open_files([Path(root) / "camvid" / "video" / "images"], size)
    frames = [stream.read(name).image.to(options.device) for name in stream.names[: options.frames]]
    chosen = {name: NETWORKS[name] for name in (options.networks or ",".join(NETWORKS)).split(",")}
    return {name: Path(root) / kept if kept else None for name, kept in chosen.items()}, frames, "CamVid's video"


if __name__ == "__main__":
    torch.manual_seed(0)
    keep_freed_memory()  # as in the command line
    main()
