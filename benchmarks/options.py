"""What each speed option of a session changes: seconds per frame, mIoU, and how many labels stay the same.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.options --json FILE

ESPNetv2 2.0 under mall-sample on every eighth dusk frame of CamVid. Options take turns frame by frame, so that a
machine whose speed drifts slows them alike.
"""

import os
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from allweather import Session, load_model, methods
from allweather.data.folder import open_files
from allweather.data.images import read_labels
from allweather.data.labels import find_mapping
from allweather.pictures.enlarge import labels_at
from allweather.runs.record import versions
from allweather.scoring.confusion import ConfusionMatrix
from benchmarks.committed import command, hand_out

OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "--precision bf16": {"precision": "bf16"},
    "--channels-last": {"channels_last": True},
    "--compile": {"compile": True},
}


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--method", default="mall-sample")
    parser.add_argument("--every", type=int, default=8)
    chosen = parser.parse_args()
    root = Path(os.environ["ALLWEATHER_ASSETS"])
    network = load_model("espnetv2:2.0", root / "weights" / "espnetv2" / "espnetv2_s_2.0_city_512x256.pth")
    stream = open_files([root / "camvid" / "dusk" / "images"], (480, 352))
    mapping = find_mapping("cityscapes-camvid11")
    table = np.asarray(mapping.table)
    sessions = {
        name: Session(network, methods.make(chosen.method, model=network), **fields) for name, fields in OPTIONS.items()
    }
    matrices = {name: ConfusionMatrix(len(mapping.truth)) for name in OPTIONS}
    seconds: dict[str, list[float]] = {name: [] for name in OPTIONS}
    same: dict[str, list[float]] = {name: [] for name in OPTIONS}
    for index, name in enumerate(stream.names[:: chosen.every]):
        frame = stream.read(name)
        path = root / "camvid" / "dusk" / "labels" / f"{name}.png"
        truth = mapping.labels(read_labels(path), path)
        reference: np.ndarray | None = None
        for option, session in sessions.items():
            started = perf_counter()
            result = session(frame.image)
            if index:  # the first frame warms up and compiles
                seconds[option].append(perf_counter() - started)
            predicted = labels_at(result.logits, frame.size)
            reference = predicted if reference is None else reference
            same[option].append(float((predicted == reference).mean()))
            matrices[option].update(table[predicted], truth)
    rows = {
        name: {
            "ms_per_frame": round(1000 * median(seconds[name]), 1),
            "ratio": round(median(a / b for a, b in zip(seconds[name], seconds["none"], strict=True)), 3),
            "mIoU": round(100 * matrices[name].mean_iou, 2),
            "same_labels": round(float(np.mean(same[name])), 5),
        }
        for name in OPTIONS
    }
    record = {
        "benchmark": "options", "model": "espnetv2:2.0", "method": chosen.method, "frames": len(same["none"]),
        "size": "480x352", "rows": rows, "versions": versions(),
    }  # fmt: skip
    hand_out(record, chosen.json)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
