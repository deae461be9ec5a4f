"""What the normalized cut could do that nothing else does, each idea behind its gate: a small trial before any code.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.gates --json FILE [--gates affinity time bias …] [--only TEXT]

- affinity: one application of an affinity on late features to a prediction, D⁻¹ A P, whole or half-way.
- time: the prediction mixed with what the frame before hands on, at the same place or by likeness.
- bias: a number per class added to the logits, moved by MALL's loss, per image or along the stream.
- bias after …: the same on the prediction of MALL-sample, and on the mean over views.
- scaling: a gain and a bias per class of MALL-domain's prediction, one step an image, some kept along the stream.
- drift: rounds of dusk and day at a rate that decays, with the cut and without.

All start from the prediction under mixed statistics (`norm`) but where a name says otherwise, and labels score alone.
Every candidate is compared with that prediction: difference of the pooled mIoU, and mean and standard error of the
frames' own differences. Rows that the file holds are not made again.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allweather import Segmenter, Session, load_model, methods
from allweather.data.class_files import find_classes
from allweather.data.labelled import labelled_folders
from allweather.data.labels import ClassMapping, mapping_between
from allweather.methods.mall import Mall
from allweather.methods.vector_scaling import scaled, unscaled
from allweather.pictures.enlarge import labels_at
from allweather.runs.record import versions
from allweather.scoring.confusion import ConfusionMatrix
from allweather.scoring.intervals import ImageCounts, image_differences
from benchmarks import gate_parts as parts
from benchmarks.committed import keep, load
from benchmarks.gate_parts import Bias, Looker

SIZE = (480, 352)
NETWORKS = {
    "espnetv2:1.0": "espnetv2/espnetv2_s_1.0_city_512x256.pth",
    "espnetv2:2.0": "espnetv2/espnetv2_s_2.0_city_512x256.pth",
    "realtime:cgnet": "realtime/cgnet_city.pth",
    "realtime:edanet": "realtime/edanet_city.pth",
}
FOLDERS = {  # images and labels, and whose classes
    "dusk": ("camvid/dusk", "camvid11"), "day": ("camvid/day", "camvid11"),
    "video": ("camvid/video", "camvid11"), "night": ("weather/night", "cityscapes"),
    "bdd": ("weather/bdd", "cityscapes"),
}  # fmt: skip
FEWER = {"dusk": slice(0, None, 12), "night": slice(0, None, 2), "day": slice(0, None, 20)}
STREAMS: dict[str, dict[str, slice]] = {  # which frames of what
    "affinity": FEWER,
    "time": {"video": slice(0, 32), "dusk": slice(0, 20)},
    "bias": {"dusk": slice(0, None, 8), "night": slice(None), "day": slice(0, None, 12)},
    "bias after mall-sample": FEWER,
    "bias after views": FEWER,
    "scaling": {"dusk": slice(0, None, 8), "night": slice(None), "day": slice(0, None, 12), "bdd": slice(0, None, 2)},
    "drift": {"dusk, day": slice(0, None, 10)},
}
BEFORE, ROUNDS = "norm", 3
DRIFTING = ("espnetv2:2.0", "realtime:cgnet")
SHARES = (0.25, 0.5)
BIAS_SCALE = 0.25  # of the input, where the bias sees its loss
RATES = (1e-2, 3e-2, 1e-1)
AFTER = (("cut alone", 0.03), ("cut alone", 0.1), ("without the cut", 0.03))  # losses and rates
WEIGHTS = (0.0, 0.3, 1.0)
HANDS_ON = ("same place", "same place, running", "color", "color and features", "color and features, running")


@dataclass(frozen=True)
class Shot:
    """A frame 3×H×W, and its truth H'×W' with −1 where nothing counts."""

    image: Tensor
    truth: np.ndarray


@dataclass
class Scores:
    """What each candidate predicted, counted frame by frame in the truth's classes."""

    mapping: ClassMapping
    frames: dict[str, list[ConfusionMatrix]] = field(default_factory=dict)

    def add(self, candidate: str, values: Tensor, shot: Shot) -> None:
        """Counts a frame's logits or probabilities C×h×w."""
        height, width = shot.truth.shape
        labels = np.asarray(self.mapping.table)[labels_at(values, (width, height))]
        counted = ConfusionMatrix(len(self.mapping.truth)).update(labels, shot.truth)
        self.frames.setdefault(candidate, []).append(counted)

    def counts(self, candidate: str, chosen: slice = slice(None)) -> ImageCounts:
        """Of the candidate's frames, N×C."""
        found = self.frames[candidate][chosen]
        intersection, union, truth = (
            np.stack([getattr(one, key) for one in found]) for key in ("intersection", "union", "in_truth")
        )
        return ImageCounts(intersection, union, truth)

    def pooled(self, candidate: str, chosen: slice = slice(None)) -> float:
        """mIoU in % of all frames together, over the classes in their truth."""
        return 100 * sum(self.frames[candidate][chosen], ConfusionMatrix(len(self.mapping.truth))).mean_iou_truth

    def change(self, candidate: str, before: str = BEFORE, chosen: slice = slice(None)) -> list[float]:
        """Against `before`: pooled mIoU, the frames' mean difference and its standard error, in points."""
        each = 100 * image_differences(self.counts(before, chosen), self.counts(candidate, chosen))
        each = each[~np.isnan(each)]
        error = each.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else float("nan")
        pooled = self.pooled(candidate, chosen) - self.pooled(before, chosen)
        return [round(float(value), 2) for value in (pooled, each.mean(), error)]

    def row(self, before: str = BEFORE) -> dict[str, Any]:
        """The record of one network along one stream."""
        values = {name: self.change(name, before) for name in self.frames if name != before}
        return {"frames": len(self.frames[before]), "mIoU": round(self.pooled(before), 2), "values": values}


Gate = Callable[[Segmenter, Sequence[Shot], ClassMapping], dict[str, Any]]


@torch.no_grad()
def affinity(model: Segmenter, shots: Sequence[Shot], mapping: ClassMapping) -> dict[str, Any]:
    """One application of each affinity, whole and half-way: what it changes on its grid is added at the full size."""
    looker, scores = Looker(model), Scores(mapping)
    for shot in shots:
        logits, features = looker.look(shot.image)
        probabilities, size = logits.softmax(0), shot.image.shape[1:]
        scores.add(BEFORE, probabilities, shot)
        for name, share, apply in parts.affinities(looker, shot.image, features, shot.truth):
            small = parts.resized(probabilities, parts.part(size, share))
            change = parts.resized(apply(small) - small, size)
            scores.add(name, probabilities + change, shot)
            scores.add(f"{name}, half-way", probabilities + change / 2, shot)
    return scores.row()


@torch.no_grad()
def time(model: Segmenter, shots: Sequence[Shot], mapping: ClassMapping) -> dict[str, Any]:
    """The frame's prediction mixed with what the frame before hands on; flicker is the share of labels that change."""
    looker, scores, flicker = Looker(model), Scores(mapping), dict[str, list[float]]()
    labels, kept, last = dict[str, Tensor](), dict[str, Tensor](), None
    for shot in shots:
        logits, features = looker.look(shot.image)
        probabilities = logits.softmax(0)
        found = {BEFORE: probabilities}
        for name, values in _handed_on(shot, features, probabilities, kept, last).items():
            share = float(name.rsplit(" ", 1)[1])
            found[name] = (1 - share) * probabilities + share * values
        kept = {name: values for name, values in found.items() if name == BEFORE or "running" in name}
        last = (shot.image, features)
        for name, values in found.items():
            scores.add(name, values, shot)
            now = values.argmax(0)
            if name in labels:
                flicker.setdefault(name, []).append(float((now != labels[name]).float().mean()))
            labels[name] = now
    return scores.row() | {"flicker": {name: round(100 * float(np.mean(each)), 2) for name, each in flicker.items()}}


def _handed_on(
    shot: Shot, features: Tensor, now: Tensor, kept: dict[str, Tensor], last: tuple[Tensor, Tensor] | None
) -> dict[str, Tensor]:
    """Candidate → probabilities C×H×W from the frame before; the frame's own where there is none."""
    names = [f"{way} {share:g}" for way in HANDS_ON for share in SHARES]
    if last is None:
        return dict.fromkeys(names, now)
    found = {name: kept[name if "running" in name else BEFORE] for name in names}
    size = parts.part(shot.image.shape[1:], 0.25)
    basis = parts.Basis.of(features)
    frames = ((shot.image, features), last)
    colors = [parts.resized(image, size) * (255 / parts.COLOR) for image, _ in frames]
    likeness = [torch.cat([color, basis(map_, size) / 0.3]) for color, (_, map_) in zip(colors, frames, strict=True)]
    for way, (here, there) in {"color and features": likeness, "color": colors}.items():
        mine = [name for name in names if name.startswith(f"{way} ") or name.startswith(f"{way}, ")]
        if way == "color":
            mine = [name for name in mine if "features" not in name]
        held = {id(found[name]): found[name] for name in mine}
        values, weights = parts.carried(here, there, torch.cat([parts.resized(value, size) for value in held.values()]))
        alike = parts.resized(weights[None].clamp(max=1), now.shape[1:])
        by_place = dict(zip(held, values.split(len(now)), strict=True))
        for name in mine:  # where nothing is alike the frame keeps its own
            moved = parts.resized(by_place[id(found[name])], now.shape[1:])
            found[name] = alike * moved + (1 - alike) * now
    return found


def bias(model: Segmenter, shots: Sequence[Shot], mapping: ClassMapping) -> dict[str, Any]:
    """Each frame's logits under mixed statistics, made once, and a bias that MALL's loss or a part of it moves."""
    looker, scores, method = Looker(model), Scores(mapping), _bias_method(model)
    kinds = {f"{loss} {rate:g}": (rate, loss) for loss in parts.LOSSES for rate in RATES}
    along = {name: Bias(len(model.classes), *kind) for name, kind in kinds.items()}
    for shot in shots:
        logits, _ = looker.look(shot.image)
        small = parts.resized(logits, parts.part(shot.image.shape[1:], method.scale))
        cut = method.affinity(shot.image[None], small.softmax(0)[None])
        scores.add(BEFORE, logits, shot)
        for name, kind in kinds.items():
            scores.add(f"{name}, stream", logits + along[name].step(method, small, cut), shot)
            alone = Bias(len(model.classes), *kind)
            for step in range(1, parts.STEPS + 1):
                moved = alone.step(method, small, cut)
                if step in (1, parts.STEPS):
                    scores.add(f"{name}, image × {step}", logits + moved, shot)
    return scores.row()


def bias_after(
    name: str, fields: dict[str, Any], model: Segmenter, shots: Sequence[Shot], mapping: ClassMapping
) -> dict[str, Any]:
    """A bias that moves on each image alone, on the prediction of a method that adapts already; guard off."""
    session = Session(model, methods.make(name, settings=fields, model=model), guard=False)
    scores, loss_of = Scores(mapping), _bias_method(model)
    for shot in shots:
        logits = session(shot.image).logits.detach()
        small = parts.resized(logits, parts.part(shot.image.shape[1:], loss_of.scale))
        cut = loss_of.affinity(shot.image[None], small.softmax(0)[None])
        scores.add(BEFORE, logits, shot)
        for loss, rate in AFTER:
            alone = Bias(len(model.classes), rate, loss)
            for step in range(1, 2 * parts.STEPS + 1):
                moved = alone.step(loss_of, small, cut)
                if step in (parts.STEPS, 2 * parts.STEPS):
                    scores.add(f"{loss} {rate:g}, image × {step}", logits + moved, shot)
    return scores.row()


def scaling(model: Segmenter, shots: Sequence[Shot], mapping: ClassMapping) -> dict[str, Any]:
    """Gains and biases that move once an image, on the prediction of MALL-domain without them."""
    session = Session(model, methods.make("mall-domain", settings={"vector_rate": 0.0}, model=model))
    scores = Scores(mapping)
    kept = {name: unscaled(len(model.classes), shots[0].image.device) for name in parts.SCALINGS}
    for shot in shots:
        logits = session(shot.image).logits.detach()
        scores.add(BEFORE, logits, shot)
        sights = {way.sight: way.look(model, shot.image, logits) for way in parts.SCALINGS.values()}
        for name, way in parts.SCALINGS.items():
            kept[name] = way.step(kept[name], *sights[way.sight])
            scores.add(name, scaled(logits, kept[name]), shot)
    return scores.row()


def _bias_method(model: Segmenter) -> Mall:
    method = methods.make("mall-sample", settings={"scale": BIAS_SCALE}, model=model)
    assert isinstance(method, Mall)
    return method


def drift(model: Segmenter, shots: Sequence[Shot], mapping: ClassMapping) -> dict[str, Any]:
    """Rounds of the same frames at a high rate, guard off: each round's mIoU, and each weight against weight 0."""
    scores, names = Scores(mapping), [f"weight {weight:g}" for weight in WEIGHTS]
    runs = {name: ("mall-domain", parts.drift_fields(weight)) for name, weight in zip(names, WEIGHTS, strict=True)}
    for name, (method, fields) in {BEFORE: ("norm", {}), **runs}.items():
        session = Session(model, methods.make(method, settings=fields, model=model), guard=False)
        for _ in range(1 if name == BEFORE else ROUNDS):
            for shot in shots:
                scores.add(name, session(shot.image).logits, shot)
    rounds = [slice(number * len(shots), (number + 1) * len(shots)) for number in range(ROUNDS)]
    scores.frames[BEFORE] *= ROUNDS  # nothing moves: every round is the first
    pooled = {name: [round(scores.pooled(name, chosen), 2) for chosen in rounds] for name in scores.frames}
    last = {name: scores.change(name, names[0], rounds[-1]) for name in names[1:]}
    return scores.row(names[0]) | {"rounds": pooled, "last": last}


GATES: dict[str, Gate] = {
    "affinity": affinity,
    "time": time,
    "bias": bias,
    "bias after mall-sample": partial(bias_after, "mall-sample", {"vector_rate": 0.0}),
    "bias after views": partial(bias_after, "norm", {"views": ("plain", "gamma-mirror", "x1.5")}),
    "scaling": scaling,
    "drift": drift,
}


def shots_of(root: Path, streams: str, chosen: slice, model: Segmenter) -> tuple[list[Shot], ClassMapping]:
    """The frames of one stream, or of several of the same classes one after another."""
    shots, mapping = list[Shot](), None
    for stream in streams.split(", "):
        folder, classes = FOLDERS[stream]
        read = labelled_folders(root / folder / "images", root / folder / "labels", find_classes(classes), SIZE)
        mapping = mapping_between(model.classes, read.classes)
        shots += [Shot(read.stream.read(name).image, read.truth(name).labels) for name in read.stream.names[chosen]]
    assert mapping is not None
    return shots, mapping


def cells(gates: Sequence[str], only: str) -> Iterator[tuple[str, str, str, slice]]:
    """Gate, network, stream and frames of every row."""
    for gate in gates:
        for network in DRIFTING if gate == "drift" else NETWORKS:
            for stream, chosen in STREAMS[gate].items():
                if only in network:
                    yield gate, network, stream, chosen


def compact(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the record holds it: three changes of each candidate in hundredths of a point, then the next's."""
    found = row | {"values": [round(100 * value) for values in row["values"].values() for value in values]}
    return found | ({"flicker": list(row["flicker"].values())} if "flicker" in row else {})


def measure(root: Path, out: Path, gates: Sequence[str], only: str) -> None:
    """Writes the file after every row."""
    done: dict[str, Any] = load(out)["gates"] if out.exists() else {}
    for gate, network, stream, chosen in cells(gates, only):
        held = done.setdefault(gate, {"candidates": [], "rows": {}})
        key = f"{network} | {stream}"
        if key in held["rows"]:
            continue
        model = load_model(network, root / "weights" / NETWORKS[network])
        row = GATES[gate](model, *shots_of(root, stream, chosen, model))
        print(gate, key, json.dumps(row), flush=True)
        if held["rows"] and held["candidates"] != list(row["values"]):
            raise SystemExit(f"{gate}: the file's rows are of other candidates than today's. Name another file.")
        held["candidates"] = list(row["values"])
        held["rows"][key] = compact(row)
        sorted_gates = {gate: done[gate] for gate in GATES if gate in done}
        about = {"benchmark": "gates", "size": "x".join(map(str, SIZE)), "versions": versions()}
        keep({**about, "gates": sorted_gates}, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--gates", nargs="+", choices=list(GATES), default=list(GATES))
    parser.add_argument("--only", default="", help="only networks whose name holds this")
    options = parser.parse_args()
    measure(Path(os.environ["ALLWEATHER_ASSETS"]), options.json, options.gates, options.only)


if __name__ == "__main__":
    main()
