"""Every method and preset on CamVid dusk or day with a real Cityscapes network, scored at the labels' size.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.camvid dusk
    ALLWEATHER_ASSETS=DIR python -m benchmarks.camvid day --rows recommended

The same figures come from `allweather adapt … --size 480x352` and `allweather score … --mapping cityscapes-camvid11`.
One record per row under benchmarks/records/camvid/; a row that is there already is not run again.
"""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from allweather import Session, load_model, methods
from allweather.app.adapt import labels_at
from allweather.bench.evaluate import run
from allweather.bench.metrics import ConfusionMatrix
from allweather.bench.record import provenance
from allweather.data.folder import open_files
from allweather.data.images import read_labels
from allweather.data.labels import find_mapping
from allweather.methods import METHODS

RECORDS = Path(__file__).parent / "records" / "camvid"
SIZE = (480, 352)
CONTINUAL = {"episodic": False, "lr": 1e-5}  # the best of 1e-5, 2e-5, 5e-5 and 1e-4 at dusk
ROWS: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    "source": ("source", "recommended", {}),
    "norm": ("norm", "recommended", {}),
    "tent": ("tent", "recommended", {}),
    "tent-continual": ("tent", "recommended", CONTINUAL),
    **{name: (name, "recommended", {}) for name in METHODS if name not in ("source", "norm", "tent")},
    "norm-paper": ("norm", "paper", {}),
    "tent-paper": ("tent", "paper", {}),
    "mall-sample-paper": ("mall-sample", "paper", {}),
    "mall-domain-paper": ("mall-domain", "paper", {}),
}
SETS = {"recommended": [row for row in ROWS if "paper" not in row], "paper": [row for row in ROWS if "paper" in row]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split", choices=("dusk", "day"))
    parser.add_argument("--width", default="2.0", choices=("0.5", "1.0", "1.5", "2.0"), help="ESPNetv2's")
    parser.add_argument("--rows", default="all", help="all, recommended, paper, or names separated by commas")
    parser.add_argument("--every", type=int, default=1, help="only every n-th frame; such rows are not recorded")
    options = parser.parse_args()
    chosen = SETS.get(options.rows) or (list(ROWS) if options.rows == "all" else options.rows.split(","))
    for row in chosen:
        path = RECORDS / f"{options.split}-espnetv2-{options.width}-{row}.json"
        if path.exists() and options.every == 1:
            print(f"{path.stem}: {json.loads(path.read_text())['mIoU']} (recorded)", flush=True)
            continue
        record = measure(options.split, options.width, *ROWS[row], every=options.every)
        print(f"{path.stem}: {record['mIoU']}", flush=True)
        if options.every == 1:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=1) + "\n")


def measure(
    split: str, width: str, name: str, preset: str, settings: Mapping[str, Any], every: int = 1
) -> dict[str, Any]:
    """One row: the method along the split, online, batch 1."""
    assets = Path(os.environ["ALLWEATHER_ASSETS"])
    torch.manual_seed(0)
    model = load_model(f"espnetv2:{width}", assets / f"weights/espnetv2/espnetv2_s_{width}_city_512x256.pth")
    session = Session(model, methods.make(name, preset, settings, model))
    stream = open_files([assets / "camvid" / split / "images"], SIZE)
    stream = stream.reordered(range(0, len(stream), every))
    mapping = find_mapping("cityscapes-camvid11")
    matrix, per_image, refused = ConfusionMatrix(len(mapping.truth)), {}, 0
    started = perf_counter()
    for outcome in run(session, stream):
        assert outcome.frame is not None
        assert outcome.logits is not None
        assert outcome.result is not None
        truth = assets / "camvid" / split / "labels" / f"{outcome.name}.png"
        predicted = mapping.predictions(labels_at(outcome.logits, outcome.frame.size).astype(int), truth)
        image = ConfusionMatrix(len(mapping.truth)).update(predicted, mapping.labels(read_labels(truth), truth))
        matrix = matrix + image
        per_image[outcome.name] = round(100 * image.mean_iou, 2)
        refused += outcome.result.decision != "accepted"
    return {
        **matrix.summary(mapping.truth.names),
        "split": f"camvid-{split}", "size": f"{SIZE[0]}x{SIZE[1]}", "preset": preset, "refused_by_guard": refused,
        "seconds_per_frame": round((perf_counter() - started) / len(stream), 3),
        **provenance(session, stream, "online", 1),
        "mIoU_per_image": per_image,
    }  # fmt: skip


if __name__ == "__main__":
    main()
