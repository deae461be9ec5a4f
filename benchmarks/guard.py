"""What the guard sees and what it should have seen: signs of harm beside the change that labels show, frame by frame.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.guard collect FILE.json [--layernorm WEIGHTS] [--only TEXT]

Each network goes along each stream with no guard at work: with MALL-domain's defaults, and with fifty times its
rate. After every frame the signs are taken that a guard could take, and,
from the labels, the pixel accuracy of the source network, of its prediction under mixed statistics, and of the adapted
one. A frame gains or loses where accuracy changes by more than half a point against the unadapted prediction.
LayerNorm's weights are those that `benchmarks.layernorm train` makes; without them that network is left out.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from allweather import Segmenter, Session, load_model, methods
from allweather.data.folder import open_files
from allweather.data.images import read_labels
from allweather.data.labels import ClassMapping, find_mapping, mapping_between
from allweather.data.scenes import SIZE, scene_labels, scene_stream
from allweather.methods.views import MIRROR
from allweather.pictures.enlarge import labels_at
from allweather.runs.record import versions
from allweather.session.guard.policy import Policy
from allweather.session.guard.signs import compare, cuts, mirror_change
from allweather.session.prediction import Prediction
from benchmarks import layernorm
from benchmarks.committed import load
from benchmarks.guard_record import read_rows, write_rows

CAMVID_SIZE = (480, 352)
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mall-domain": ("mall-domain", "recommended", {}),
    "mall-domain, rate × 50": ("mall-domain", "recommended", {"lr": 2e-2}),
}


@dataclass(frozen=True)
class Shot:
    """A frame 3×H×W, and its truth H×W with −1 where nothing counts."""

    name: str
    image: Tensor
    truth: np.ndarray


def networks(root: Path, only: str, layernorm_weights: Path | None) -> Iterator[tuple[str, Segmenter]]:
    """Every network with weights at hand, by name."""
    files = {f"espnetv2:{w}": f"espnetv2/espnetv2_s_{w}_city_512x256.pth" for w in ("0.5", "1.0", "1.5", "2.0")}
    files |= {"espnet:q8": "espnet/espnet_p_2_q_8.pth"}
    files |= {f"realtime:{name}": f"realtime/{name}_city.pth" for name in ("cgnet", "edanet", "dabnet")}
    for name, file in files.items():
        if only in name:
            yield name, load_model(name, root / "weights" / file)
    if only in "demo:streetnet":
        yield "demo:streetnet", load_model("demo:streetnet")
    if layernorm_weights is not None and only in "layernorm":
        model = layernorm.build()
        model.network.load_state_dict(load_file(layernorm_weights))
        yield "layernorm", model


def streams(root: Path, model: Segmenter) -> Iterator[tuple[str, ClassMapping, list[Shot]]]:
    """The streams that the network's classes can be scored on; the demo's network sees scenes, all others frames."""
    if model.name == "demo:streetnet":
        for weather in ("clear", "fog", "night"):
            stream = scene_stream(weather, range(600_000, 600_016))
            shots = [Shot(n, stream.read(n).image, scene_labels(n, SIZE).astype(np.int64)) for n in stream.names]
            yield weather, mapping_between(model.classes, model.classes), shots
        return
    stored = find_mapping("camvid11")
    mapping = mapping_between(model.classes, stored.truth)
    size = layernorm.SIZE if model.name == "streetnet-layernorm" else CAMVID_SIZE
    for split, every in (("dusk", 8), ("day", 16)):
        folder = root / "camvid" / split
        stream = open_files([folder / "images"], size)
        truths = {n: folder / "labels" / f"{n}.png" for n in stream.names[::every]}
        shots = [Shot(n, stream.read(n).image, stored.labels(read_labels(p), p)) for n, p in truths.items()]
        yield split, mapping, _in_any_order(shots)
    if len(model.classes) != 19:
        return
    cityscapes = mapping_between(model.classes, model.classes)
    for split, size, every in (("night", (608, 352), 2), ("bdd", (640, 352), 3)):
        folder = root / "weather" / split
        stream = open_files([folder / "images"], size)
        shots = []
        for name in stream.names[::every]:
            truth = read_labels(folder / "labels" / f"{name}.png").astype(np.int64)
            shots.append(Shot(name, stream.read(name).image, np.where(truth == 255, -1, truth)))
        yield split, cityscapes, shots


def _in_any_order(shots: list[Shot]) -> list[Shot]:
    generator = torch.Generator().manual_seed(0)
    return [shots[index] for index in torch.randperm(len(shots), generator=generator).tolist()]


class Watcher:
    """Takes signs where the guard would judge, and lets everything stand."""

    def __init__(self, session: Session, source: Segmenter) -> None:
        self._session, self._source = session, source
        self.found: dict[str, Any] = {}
        self.references: dict[str, Tensor] = {}
        session._policy = self  # type: ignore[assignment]
        self._policy = Policy(session.guard, session._adapted)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    @torch.no_grad()
    def judge(self, images: Tensor, prediction: Prediction, *_: Any) -> None:
        """All signs of one frame; see the module."""
        adapted = self._session._adapted
        flipped = images.flip(3)
        mixed, mixed_mirrored = adapted.source_logits(images), adapted.source_logits(flipped).flip(3)
        own, own_mirrored = self._source(images), self._source(flipped).flip(3)
        mirrored = prediction.views[MIRROR] if MIRROR in prediction.views else adapted.predict(flipped).plain.flip(3)
        ncut = cuts(images, [own, mixed, prediction.plain])
        self.found = {
            "step": asdict(compare(mixed, prediction.plain)),
            "noise": asdict(compare(mixed, mixed_mirrored)),
            "noise_own": {"disagreement": compare(own, own_mirrored).disagreement},
            "flip": [float(mirror_change(a, b.flip(3))) for a, b in
                     ((own, own_mirrored), (mixed, mixed_mirrored), (prediction.plain, mirrored))],
            "ncut": ncut,
        }  # fmt: skip
        both = (own.softmax(1) + mixed.softmax(1)) / 2
        self.references = {"source": own, "mixed": mixed, "adapted": prediction.plain, "average": both.log()}

    def measure(self, shot: Shot, reported: Tensor, mapping: ClassMapping) -> dict[str, Any]:
        """The signs of the frame just seen, and pixel accuracies in %."""
        table = np.asarray(mapping.table)
        logits = {**{name: value[0] for name, value in self.references.items()}, "reported": reported}
        height, width = shot.truth.shape
        counted = shot.truth >= 0
        accuracy = {
            name: round(100 * float((table[labels_at(value, (width, height))] == shot.truth)[counted].mean()), 2)
            for name, value in logits.items()
        }
        return {"name": shot.name, "accuracy": accuracy, "signs": _rounded(self.found)}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else round(value, 4)


def collect(root: Path, out: Path, only: str, weights: Path | None) -> None:
    """Writes the file after every row; rows that it holds are not made again."""
    rows = read_rows(load(out)) if out.exists() else []
    done = {(row["network"], row["stream"], row["run"]) for row in rows}
    for network, model in networks(root, only, weights):
        for stream, mapping, shots in streams(root, model):
            for run, (name, preset, fields) in RUNS.items():
                if (network, stream, run) in done:
                    continue
                session = Session(model, methods.make(name, preset, fields, model=model), guard=False)
                watcher = Watcher(session, model)
                frames = []
                for shot in shots:
                    result = session(shot.image)
                    frames.append(watcher.measure(shot, result.logits, mapping))
                rows.append({"network": network, "stream": stream, "run": run, "frames": frames})
                write_rows(rows, versions(), out)
                print(network, stream, run, *_means(frames), flush=True)


def _means(frames: list[dict[str, Any]]) -> list[str]:
    keys = ("source", "mixed", "average", "adapted", "reported")
    return [f"{key} {np.mean([frame['accuracy'][key] for frame in frames]):.2f}" for key in keys]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("collect",))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="only networks whose name holds this")
    parser.add_argument("--layernorm", type=Path, help="weights of the LayerNorm network")
    options = parser.parse_args()
    collect(Path(os.environ["ALLWEATHER_ASSETS"]), options.file, options.only, options.layernorm)


if __name__ == "__main__":
    main()
