"""A small network with LayerNorm alone, trained on CamVid's daytime frames, adapted to dusk: what suits such networks.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.layernorm train WEIGHTS.safetensors
    ALLWEATHER_ASSETS=DIR python -m benchmarks.layernorm measure WEIGHTS.safetensors --json FILE

The weights learn from camvid/day-train and stay with whoever trains them; camvid/dusk and camvid/day are not seen.
"""

import os
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from allweather import CAMVID11, Segmenter, Session, methods
from allweather.data.folder import open_files
from allweather.data.images import read_labels
from allweather.models.nets.streetnet import StreetNet
from allweather.pictures.enlarge import labels_at
from allweather.runs.decisions import count
from allweather.runs.record import versions
from allweather.scoring.confusion import ConfusionMatrix
from allweather.session import Decision
from benchmarks.committed import command, hand_out
from benchmarks.stream import TWO_VIEWS
from benchmarks.train_streetnet import fit

SIZE = (240, 176)  # width, height of training and adaptation
VOID = 11
VIEWS = {"views": methods.MallDomain().views}  # for every rival too
ENLARGED = {"views": ("plain", "gamma-mirror-x1.5")}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "source": ("source", {}),
    "source, MALL's views": ("source", VIEWS),
    **{f"tent lr {lr:g}": ("tent", {"lr": lr, **VIEWS}) for lr in (5e-4, 1e-2)},
    **{f"infomax lr {lr:g}": ("infomax", {"lr": lr, **VIEWS}) for lr in (1e-3, 1e-2)},
    **{f"mall-sample lr {lr:g}": ("mall-sample", {"lr": lr}) for lr in (1e-3, 1e-2)},
    **{f"mall-domain lr {lr:g}": ("mall-domain", {"lr": lr}) for lr in (5e-5, 3e-4, 1e-3)},
    "mall-sample, not scaled": ("mall-sample", {"lr": 1e-2, "vector_rate": 0.0}),
    "mall-domain, not scaled": ("mall-domain", {"lr": 3e-4, "vector_rate": 0.0}),
    "mall-sample, more": ("mall-sample", {"lr": 3e-2}),
    "mall-domain, more": ("mall-domain", {"lr": 3e-3}),
    "always enlarged: source": ("source", ENLARGED),
    "always enlarged: infomax lr 0.01": ("infomax", {"lr": 1e-2, **ENLARGED}),
    "always enlarged: mall-sample": ("mall-sample", ENLARGED),
    "always enlarged: mall-domain": ("mall-domain", ENLARGED),
    "mirror: source": ("source", TWO_VIEWS),
    "mirror: infomax lr 0.01": ("infomax", {"lr": 1e-2, **TWO_VIEWS}),
    "mirror: mall-sample": ("mall-sample", TWO_VIEWS),
    "mirror: mall-domain": ("mall-domain", TWO_VIEWS),
}


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: B×C×H×W to the same."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def build() -> Segmenter:
    """StreetNet with LayerNorm in place of BatchNorm, for CamVid's eleven classes."""
    network = StreetNet()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, ChannelNorm(child.num_features))
    network.head = nn.Conv2d(network.head.in_channels, len(CAMVID11), 1)
    return Segmenter.wrap(
        network, classes=CAMVID11, mean=(0.5,) * 3, std=(0.25,) * 3, size_multiple=8, name="streetnet-layernorm"
    ).eval()


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("verb", choices=("train", "measure"))
    parser.add_argument("weights", type=Path)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--every", type=int, default=1, help="only every n-th frame")
    parser.add_argument("--rows", default="", help="only rows whose name starts with this")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = build()
    if options.verb == "train":
        train(model, options.steps, options.batch)
        save_file({key: value.contiguous() for key, value in model.network.state_dict().items()}, options.weights)
        return
    model.network.load_state_dict(load_file(options.weights))
    rows = {
        name: {split: measure(model, split, *chosen, every=options.every) for split in ("dusk", "day")}
        for name, chosen in ROWS.items()
        if name.startswith(options.rows)
    }
    hand_out({"benchmark": "layernorm", "size": SIZE, "rows": rows, "versions": versions()}, options.json)


def measure(model: Segmenter, split: str, name: str, fields: dict[str, Any], every: int = 1) -> dict[str, Any]:
    """mIoU in % of one method along a split, labels at their own size, and what became of its updates."""
    started = perf_counter()
    folder = _root() / split
    stream = open_files([folder / "images"], SIZE)
    session = Session(model, methods.make(name, settings=fields, model=model))
    matrix, decisions = ConfusionMatrix(len(CAMVID11)), list[Decision]()
    for frame_name in stream.names[::every]:
        frame = stream.read(frame_name)
        result = session(frame.image)
        decisions.append(result.decision)
        truth = read_labels(folder / "labels" / f"{frame_name}.png")
        matrix.update(labels_at(result.logits, frame.size).astype(int), np.where(truth == VOID, -1, truth))
    print(split, name, fields, round(100 * matrix.mean_iou, 2), flush=True)
    return {
        "mIoU": round(100 * matrix.mean_iou, 2),
        "decisions": count(decisions),
        "seconds": round(perf_counter() - started, 1),
    }


def train(model: Segmenter, steps: int, batch: int) -> None:
    """As StreetNet is trained, on real frames."""
    images, labels = _frames()
    frequency = torch.bincount(labels.flatten().long(), minlength=VOID + 1)[:VOID].float()
    weight = (frequency.sum() / frequency).log().clamp(1, 6)
    fit(model, images, labels, weight, steps, batch, rate=3e-3, decay=1e-3, ignore=VOID)


def _frames() -> tuple[Tensor, Tensor]:
    """uint8 images N×3×H×W and labels N×H×W of camvid/day-train at `SIZE`."""
    folder = _root() / "day-train"
    stream = open_files([folder / "images"], SIZE)
    images = torch.stack([(stream.read(name).image * 255).round().byte() for name in stream.names])
    truths = [torch.from_numpy(read_labels(folder / "labels" / f"{name}.png")) for name in stream.names]
    small = [functional.interpolate(truth[None, None].float(), SIZE[::-1], mode="nearest")[0, 0] for truth in truths]
    return images, torch.stack(small).byte()


def _root() -> Path:
    return Path(os.environ["ALLWEATHER_ASSETS"]) / "camvid"


if __name__ == "__main__":
    main()
