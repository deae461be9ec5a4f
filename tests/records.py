"""Records of made-up runs, as `allweather bench` writes them."""

import json
from pathlib import Path

import numpy as np

from allweather.scoring.confusion import ConfusionMatrix


def record(method: str, right: float, **changes: object) -> dict:
    """A record whose predictions are right at a share `right` of the pixels of four images of three classes."""
    rng = np.random.default_rng(0)
    images, total = [], ConfusionMatrix(3)
    for index in range(4):
        truth = rng.integers(0, 3, 400)
        predicted = np.where(np.arange(400) < 400 * right, truth, (truth + 1) % 3)
        image = ConfusionMatrix(3).update(predicted, truth)
        total = total + image
        entry = {"name": f"f<{index}>", "mIoU": 100 * image.mean_iou, "ncut": 2.0, "seconds": 0.5, "iterations": 2}
        images.append({**entry, "intersection": image.intersection.tolist(), "union": image.union.tolist()})
    run = {
        "model": {"name": changes.get("model", "tiny:net"), "size": None},
        "stream": {"name": changes.get("stream", "rain & fog")},
        "method": {"name": method, "preset": changes.get("preset", "recommended"), "fields": changes.get("fields", {})},
        "protocol": "online", "scoring": "native", "order": "natural", "seed": changes.get("seed", 0), "batch": 12,
    }  # fmt: skip
    return {
        "run": run, "protocol": "online", "frames": 4, "order_hash": "ab" * 32, "prediction": "before the update",
        "model": {"name": run["model"]["name"], "weights": "tiny.pth", "sha256": "cd" * 32},
        "figures": {
            **total.summary(("road", "sky_high", "car")), "interval": [1.0, 99.0], "level": 0.95,
            "calibration_error": 0.1, "ncut": 2.0,
        },
        "reliability": [{"pixels": 9, "confidence": 0.4, "accuracy": 0.3}], "images": images, "failures": {},
        "peak_memory_mib": 1.0, "versions": {"machine": "one"},
        **({"parts": changes["parts"]} if "parts" in changes else {}),
    }  # fmt: skip


def save(folder: Path, *records: dict) -> Path:
    folder.mkdir(exist_ok=True)
    for index, content in enumerate(records):
        (folder / f"{index}.json").write_text(json.dumps(content))
    return folder
