"""Which views to average: every set of them scored on one adaptation, networks by streams of a plan.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.views --json FILE

MALL-domain learns from the plain image alone, so that along a stream one adaptation serves all sets of views: each
frame's views are predicted once, and every set is a mean over some of them. A frame that the guard changed counts for
all sets as the guard left it. Beside them: what the source gains by images enlarged by 1.5, and whether the ratio of
its entropies tells.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allweather import Segmenter, Session, advise_scale, methods
from allweather.data.labelled import LabelledStream
from allweather.data.labels import mapping_between
from allweather.methods.views import View, mean_softmax, parse_views, passes_of, resized
from allweather.pictures.enlarge import classify
from allweather.runs.execute import open_model
from allweather.runs.plan import read_plan
from allweather.runs.record import versions
from allweather.runs.streams import open_stream
from allweather.scoring.confusion import ConfusionMatrix
from allweather.session.input_scale import BELOW, LARGER
from benchmarks.committed import ROOT, benchmark_record, command, hand_out, markdown_table

PLAN = ROOT / "plans" / "carry-over-choice.toml"
RECORD = "views.json.gz"
SETS = (
    "plain",
    "plain,mirror",
    "plain,gamma-mirror",
    "plain,mirror,gamma",
    "plain,gamma-mirror-x1.5",
    "plain,gamma-mirror,x1.4",
    "plain,gamma-mirror,x1.5",
    "plain,gamma-mirror,mirror-x1.5",
    "plain,mirror,gamma-mirror-x1.5",
    "plain,gamma-mirror,x2.0",
    "plain,gamma-mirror,source-mirror,x1.4",
    "plain,gamma-mirror,x1.5,gamma-mirror-x1.5",
    "plain,gamma-mirror,x1.5,mirror-x1.5",
    "plain,gamma-mirror,source-mirror,x1.5,gamma-mirror-x1.5",
    "plain,gamma-mirror,x1.5,x2.0",
    "plain,mirror,gamma,gamma-mirror,x1.5,mirror-x1.5",
)


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--plan", type=Path, default=PLAN, help="its networks and streams; its methods do not count")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of views that many networks were not trained for
    cells = []
    for run in read_plan(options.plan).runs:
        if run.method.name == "source":
            cell = {"model": run.model.name, "stream": run.stream.name}
            cells.append(cell | measure(open_model(run), open_stream(run)))
            print(cells[-1], flush=True)
    hand_out({"benchmark": "views", "sets": SETS, "cells": cells, "versions": versions()}, options.json)


def measure(model: Segmenter, labelled: LabelledStream, sets: tuple[str, ...] = SETS) -> dict[str, Any]:
    """mIoU in % of the source, and the gain over it of MALL-domain with each of the sets of views."""
    mapping = mapping_between(model.classes, labelled.classes)
    table, classes = np.asarray(mapping.table, np.int16), len(mapping.truth)
    chosen = [parse_views(names.split(",")) for names in sets]
    every = tuple(dict.fromkeys(name for names in sets for name in names.split(",")))
    source = Session(model, methods.make("source"))
    larger = ConfusionMatrix(classes)
    adapting = Session(model, methods.make("mall-domain", settings={"views": every, "vector_rate": 0.0}, model=model))
    before, after = ConfusionMatrix(classes), [ConfusionMatrix(classes) for _ in sets]
    for name in labelled.stream.names:
        image, truth = labelled.stream.read(name).image, labelled.truth(name).labels
        before.update(table[classify(source(image).logits, truth.shape)[1]], truth)
        enlarged = source(resized(image[None], LARGER)).logits[0]
        larger.update(table[classify(enlarged, truth.shape)[1]], truth)
        with seen_views(adapting) as seen:
            left = adapting(image).logits
        for views, matrix in zip(chosen, after, strict=True):
            logits = mean_softmax(seen[view] for view in views).log()[0] if seen else left
            matrix.update(table[classify(logits, truth.shape)[1]], truth)
    base = 100 * before.mean_iou_truth
    gains = [round(100 * matrix.mean_iou_truth - base, 2) for matrix in after]
    advice = advise_scale(model, (labelled.stream.read(name).image for name in labelled.stream.names))
    return {
        "frames": len(labelled.stream),
        "source": round(base, 2),
        "entropy_ratio": round(advice.ratio, 3),
        "larger": round(100 * larger.mean_iou_truth - base, 2),
        "gains": gains,
    }


@contextmanager
def seen_views(session: Session) -> Iterator[Mapping[View, Tensor]]:
    """Logits of each view of the frame that is adapted to inside; empty where the guard did not accept it."""
    seen: dict[View, Tensor] = {}
    policy = session._policy
    judge = policy.judge

    def judged(images: Tensor, prediction: Any, *others: Any) -> Any:
        objection = judge(images, prediction, *others)
        seen.update(prediction.views if objection is None else {})
        return objection

    policy.judge = judged  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        policy.judge = judge  # type: ignore[method-assign]


def listed() -> str:
    """The sets by the mean over cells of what they gain, with the worst cell and the cost."""
    record = benchmark_record(RECORD)
    if record is None:
        return "not measured"
    rows = []
    for number, names in enumerate(record["sets"]):
        gains = [cell["gains"][number] for cell in record["cells"]]
        by_stream: dict[str, list[float]] = {}
        for cell, gain in zip(record["cells"], gains, strict=True):
            by_stream.setdefault(cell["stream"], []).append(gain)
        cost = passes_of(parse_views(names.split(",")))
        rows.append((names, cost, mean(gains), min(gains), {name: mean(found) for name, found in by_stream.items()}))
    rows.sort(key=lambda row: -row[2])
    streams = list(rows[0][4])
    heads = ["views", "forward passes", "mean gain", "worst cell", *streams]
    return markdown_table(
        heads,
        [
            [names, f"{cost:.2f}", f"{gain:+.2f}", f"{worst:+.2f}", *(f"{each[name]:+.2f}" for name in streams)]
            for names, cost, gain, worst, each in rows
        ],
    )


def scales() -> str:
    """What the source gains by larger images, beside the ratio that is to tell it."""
    record = benchmark_record(RECORD)
    if record is None:
        return "not measured"
    rows = [
        [cell["model"], cell["stream"], f"{cell['entropy_ratio']:.2f}", f"{cell['larger']:+.2f}", _said(cell)]
        for cell in record["cells"]
    ]
    return markdown_table(
        ["network", "stream", "ratio of entropies", "the source at ×1.5, points of mIoU", "advice"], rows
    )


def _said(cell: Mapping[str, Any]) -> str:
    enlarge = cell["entropy_ratio"] < BELOW
    return f"{'enlarge' if enlarge else 'leave'}: {'right' if enlarge == (cell['larger'] > 0) else 'wrong'}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
