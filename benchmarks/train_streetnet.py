"""Trains the network that the package ships, on clear procedural scenes alone, and records how it does in weather.

    python -m benchmarks.train_streetnet              # trains, tunes, measures
    python -m benchmarks.train_streetnet --measure    # tunes and measures the weights that are there

Seeds: 0.. train, 100000.. tune (the share of test statistics), 200000.. the record's scores. The demo uses 300000...
"""

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from allweather import Segmenter, Session, load_model, methods
from allweather.data.scenes import render, scene_labels, scene_stream
from allweather.data.weather import ADVERSE, CONDITIONS
from allweather.models.catalogue import find_entry
from allweather.models.nets.streetnet import WEIGHTS
from allweather.runs.record import versions
from allweather.scoring.confusion import ConfusionMatrix
from benchmarks.committed import RECORDS, keep, load

RECORD = RECORDS / "streetnet.json.gz"
TRAIN, TUNE, TEST = 0, 100_000, 200_000
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)  # 0 is the source network


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--scenes", type=int, default=500)
    arguments.add_argument("--steps", type=int, default=1200)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--out", type=Path, default=WEIGHTS)
    arguments.add_argument("--measure", action="store_true", help="keep the weights at --out; renew the scores alone")
    options = arguments.parse_args()
    training = load(RECORD)["training"] if options.measure else run_training(options)
    record = {
        "training": training,
        "measured_with": versions(),
        "bytes": options.out.stat().st_size,
        "sha256": hashlib.sha256(options.out.read_bytes()).hexdigest(),
        "tuning": {"first_seed": TUNE, "scenes": 12, "norm_by_share": tune(options.out, 12)},
        "test": {"first_seed": TEST, "scenes": 24, "mIoU": measure(options.out, 24)},
    }
    keep(record, RECORD)
    print(json.dumps(record, indent=1))


def run_training(options: argparse.Namespace) -> dict[str, Any]:
    """Trains and writes the weights; gives what is needed to repeat it."""
    torch.manual_seed(0)
    images, labels = clear_scenes(options.scenes)
    model = find_entry("demo:streetnet").segmenter()
    started = time.perf_counter()
    train(model, images, labels, options.steps, options.batch)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.network.state_dict().items()}, options.out)
    return {
        "first_seed": TRAIN, "scenes": options.scenes, "steps": options.steps, "batch": options.batch,
        "seconds": round(time.perf_counter() - started), "versions": versions(),
    }  # fmt: skip


def clear_scenes(count: int) -> tuple[Tensor, Tensor]:
    """uint8 images N×3×H×W and labels N×H×W of the training seeds."""
    scenes = [render(TRAIN + seed) for seed in range(count)]
    images = np.stack([np.round(scene.rgb * 255).astype(np.uint8) for scene in scenes])
    labels = np.stack([scene.labels for scene in scenes])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def train(model: Segmenter, images: Tensor, labels: Tensor, steps: int, batch: int) -> None:
    """Rare classes count for more, up to six times."""
    frequency = torch.bincount(labels.flatten().long(), minlength=19).float()
    weight = torch.where(frequency > 0, (frequency.sum() / frequency.clamp_min(1)).log().clamp(1, 6), 0)
    fit(model, images, labels, weight, steps, batch, rate=4e-3, decay=1e-4)


def fit(
    model: Segmenter, images: Tensor, labels: Tensor, weight: Tensor, steps: int, batch: int,
    *, rate: float, decay: float, ignore: int = -100,
) -> None:  # fmt: skip
    """AdamW with a one-cycle rate; flips and mild changes of light are the only augmentation.

    Args:
        images, labels: uint8, N×3×H×W and N×H×W.
        weight: of each class in the loss.
        ignore: the label that the loss leaves out.
    """
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    model.train()
    for step in range(steps):
        chosen = torch.randint(len(images), (batch,))
        x, y = images[chosen].float() / 255, labels[chosen].long()
        if step % 2:
            x, y = x.flip(3), y.flip(2)
        gain, lift = torch.empty(2, batch, 1, 1, 1).uniform_(-0.1, 0.1)
        x = (x * (1 + gain) + lift * 0.5).clamp(0, 1)
        loss = functional.cross_entropy(model(x), y, weight, ignore_index=ignore)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    model.eval()


def tune(weights: Path, count: int) -> dict[str, dict[str, float]]:
    """mIoU in % of `norm` by share of test statistics over `count` scenes of the tuning seeds."""
    model = load_model("demo:streetnet", weights)
    figures = {}
    for share in SHARES:
        method = methods.make("norm", settings={"share": share}, model=model)
        row = {name: score(Session(model, method), name, TUNE, count) for name in CONDITIONS}
        adverse = sum(row[name] for name in ADVERSE) / len(ADVERSE)
        figures[str(share)] = {"clear": row["clear"], "adverse": round(adverse, 2)}
    return figures


def measure(weights: Path, count: int) -> dict[str, dict[str, float]]:
    """mIoU in % over `count` scenes of the test seeds, per method and condition."""
    model = load_model("demo:streetnet", weights)
    return {
        name: {
            condition: score(Session(model, methods.make(name, model=model)), condition, TEST, count)
            for condition in CONDITIONS
        }
        for name in ("source", "norm")
    }


def score(session: Session, condition: str, first: int, count: int) -> float:
    """mIoU in % of `session` along `count` scenes from seed `first`."""
    matrix = ConfusionMatrix(19)
    for frame in scene_stream(condition, range(first, first + count)):
        matrix.update(session(frame.image).labels.numpy().astype(int), scene_labels(frame.name).astype(int))
    return round(100 * matrix.mean_iou, 2)


if __name__ == "__main__":
    main()
