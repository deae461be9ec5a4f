"""What carries over to other networks and weathers: the records of plans/carry-over.toml as one small record.

    ALLWEATHER_ASSETS=DIR allweather bench plans/carry-over.toml --out results/carry-over
    python -m benchmarks.carry_over results/carry-over --json benchmarks/records/carry-over.json.gz

A cell is one network on one stream. Gains are in points of mIoU over the classes in the truth: pooled over the frames,
and as the mean over frames of each frame's own, which rare classes move less; its standard error is over frames, of
which all networks see the same: where each frame's figures are kept, they are averaged over networks first.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from allweather import methods
from allweather.methods.views import parse_views, passes_of
from allweather.report.derived import miou_of
from allweather.runs.record_file import read_record
from benchmarks.committed import benchmark_record, command, hand_out, markdown_table
from benchmarks.passes import cost_of

RECORD, CHOICE, PARTS = "carry-over.json.gz", "carry-over-choice.json.gz", "carry-over-parts.json.gz"
FRESH, NATIVE, GUARD = "carry-over-fresh.json.gz", "carry-over-native.json.gz", "carry-over-guard.json.gz"
FIT, LARGE, LAMPS = "carry-over-fit.json.gz", "carry-over-large.json.gz", "carry-over-lamps.json.gz"
CHOSE = ("espnetv2:1.0", "espnetv2:2.0", "realtime:cgnet", "realtime:edanet")  # settings were chosen on these
VIEWS = list(methods.MallDomain().views)  # of MALL's defaults, and here of every rival
RIVALS = ("norm", "tent", "infomax")
FAR = ("norm", "tent")  # which lead nowhere in the mean, and so have no row of their own beside MALL
OURS = ("mall-sample", "mall-domain")
NIGHT, SKY = "night", "sky"
DAY = ("camvid-day", "bdd")  # most of whose frames are clear
HARM = 5.0  # points of pixel accuracy
BEHIND = 0.3  # points of mIoU
Cell = Mapping[str, Any]


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("runs", type=Path, help="the folder that the plan's records are in")
    parser.add_argument(
        "--views", default=",".join(VIEWS), help="those that all rows share, which their names leave out"
    )
    options = parser.parse_args()
    records = [read_record(path) for path in sorted(options.runs.glob("*.json"))]
    if not records:
        raise SystemExit(f"no record (.json) in {options.runs}.")
    found = list(cells(records, options.views.split(",")))
    hand_out(_spelt_lines(found, records[0]["versions"]), options.json)


def _spelt_lines(found: Sequence[Cell], versions: Mapping[str, str]) -> str:
    """The record with one cell a line."""
    head = json.dumps({"benchmark": "carry-over", "versions": versions}, separators=(",", ":")).removesuffix("}")
    return head + ',"cells":[\n' + ",\n".join(json.dumps(cell, separators=(",", ":")) for cell in found) + "\n]}"


def cells(records: Iterable[Mapping[str, Any]], views: Sequence[str] = VIEWS) -> Iterable[dict[str, Any]]:
    """Every network on every stream, with what each method gave there and its difference to the others."""
    grouped: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for record in records:
        run = record["run"]
        grouped.setdefault((run["model"]["name"], run["stream"]["name"]), {})[label_of(record, views)] = record
    for (model, stream), found in grouped.items():
        source = found["source"]
        yield {
            "model": model,
            "stream": stream,
            "frames": len(source["images"]),
            "methods": {label: _row(record, source) for label, record in found.items()},
            "each_frame": {label: _each_frame(record) for label, record in found.items()},
            "leads": {
                ours: {other: _lead(found[ours], found[other]) for other in found if beside(ours, other)}
                for ours in OURS
                if ours in found
            },
        }


def beside(ours: str, other: str) -> bool:
    """Whether a table shows the lead of one over the other: over rivals, and of MALL-domain over its variants."""
    return other.split()[0] in RIVALS or (ours == "mall-domain" and other.startswith("mall-domain "))


def label_of(record: Mapping[str, Any], views: Sequence[str] = VIEWS) -> str:
    """The method with whatever differs from its defaults, but the views that all share."""
    method = record["run"]["method"]
    preset = "" if method["preset"] == "recommended" else f" {method['preset']}"
    changed = [f"{name}={_spelt(value)}" for name, value in method["fields"].items() if value != views]
    changed += [f"guard.{name}={_spelt(value)}" for name, value in method.get("guard", {}).items()]
    return " ".join([method["name"] + preset, *changed])


def _spelt(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def _row(record: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    losses = [before - after for before, after in zip(_accuracies(source), _accuracies(record), strict=True)]
    sky = record["figures"]["IoU"].get(SKY)
    return {
        "mIoU": round(miou_of(record), 2),
        "over_source": _lead(record, source),
        "sky": None if sky is None else round(sky, 1),
        "worst_frame": round(-max(losses), 1),
        "frames_harmed": sum(loss > HARM for loss in losses),
        "harm_seen": sum(loss > HARM for loss, image in zip(losses, record["images"], strict=True) if _refused(image)),
    }


def _refused(image: Mapping[str, Any]) -> bool:
    """Whether the guard has seen something on this frame, or on one before it and rests."""
    return image["decision"] not in ("accepted", "skipped")


def _lead(ours: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    """Pooled difference, and the mean of the frames' own with its standard error; points of mIoU."""
    frames = np.subtract(_each_frame(ours), _each_frame(other))
    error = frames.std(ddof=1) / len(frames) ** 0.5 if len(frames) > 1 else float("nan")
    pooled = miou_of(ours) - miou_of(other)
    return [round(float(value), 2) for value in (pooled, frames.mean(), error)]


def _each_frame(record: Mapping[str, Any]) -> list[float]:
    """Every frame's own mIoU in %."""
    return [round(100 * _frame_miou(image), 3) for image in record["images"]]


def _frame_miou(image: Mapping[str, Any]) -> float:
    """Over the classes in the frame's truth: those whose union is more than what was only predicted."""
    inside = [
        (hit, union)
        for number, (hit, union) in enumerate(zip(image["intersection"], image["union"], strict=True))
        if union and number not in image["only_predicted"]
    ]
    return mean(hit / union for hit, union in inside) if inside else float("nan")


def _accuracies(record: Mapping[str, Any]) -> list[float]:
    """Each frame's pixel accuracy in %: twice its pixels are the classes' unions and intersections together."""
    return [
        200 * sum(image["intersection"]) / max(1, sum(image["intersection"]) + sum(image["union"]))
        for image in record["images"]
    ]


def _leads(found: Sequence[Cell], ours: str, other: str) -> list[list[float]]:
    return [cell["leads"][ours][other] for cell in found if other in cell["leads"][ours]]


def _gain(cell: Cell, label: str) -> float:
    return float(cell["methods"][label]["over_source"][0])


def _labels(found: Sequence[Cell]) -> list[str]:
    return [label for label in found[0]["methods"] if all(label in cell["methods"] for cell in found)]


def _table(draw: Callable[[list[Cell]], str], name: str = RECORD) -> Callable[[], str]:
    def table() -> str:
        record = benchmark_record(name)
        return "not measured" if record is None else draw(record["cells"])

    return table


def _confirming(found: Sequence[Cell]) -> list[Cell]:
    """The cells of networks on which nothing was chosen; none where that is true of all."""
    confirming = [cell for cell in found if cell["model"] not in CHOSE]
    return confirming if len(confirming) < len(found) else []


def summary(found: list[Cell]) -> str:
    """One row per method: its mean gain over all networks and streams, over the confirming ones, and its worst."""
    confirming = _confirming(found)
    rows = []
    for label in sorted(_labels(found), key=lambda label: -mean(_gain(cell, label) for cell in found)):
        gains = [_gain(cell, label) for cell in found]
        night = [cell for cell in found if cell["stream"] == NIGHT]
        sky = [cell["methods"][label]["sky"] - cell["methods"]["source"]["sky"] for cell in night]
        rows.append(
            [
                label,
                _cost(label),
                f"{mean(gains):+.2f}",
                *([f"{mean(_gain(cell, label) for cell in confirming):+.2f}"] if confirming else []),
                *_spread(gains),
                f"{mean(sky):+.1f}",
                _harmed(found, label),
                _seen(found, label),
            ]
        )
    heads = ["method", "in forward passes", "mean gain", *(["on the confirming networks"] if confirming else [])]
    heads += ["range over cells", "cells below source − 0.5"]
    return markdown_table(
        [*heads, "sky IoU at night", "frames that lose over 5 points of accuracy", "the guard saw"], rows
    )


def _spread(gains: Sequence[float]) -> list[str]:
    """The lowest and the highest gain, and how many are losses."""
    lost = sum(gain < -0.5 for gain in gains)
    return [f"{min(gains):+.2f} to {max(gains):+.2f}", f"{lost} of {len(gains)}"]


def _harmed(found: Sequence[Cell], label: str) -> str:
    """How many frames lose more than `HARM`, of how many."""
    harmed = sum(cell["methods"][label]["frames_harmed"] for cell in found)
    return f"{harmed} of {sum(cell['frames'] for cell in found)}"


def _seen(found: Sequence[Cell], label: str) -> str:
    """In how many of them the guard saw something."""
    return str(sum(cell["methods"][label]["harm_seen"] for cell in found))


def _cost(label: str) -> str:
    """What a frame costs, in forward passes of the source: rivals with the views that all share."""
    name, _, rest = label.partition(" ")
    preset = rest if rest in methods.METHODS[name].presets else "recommended"
    cost = cost_of(name, preset, VIEWS if name in RIVALS else methods.make(name, preset).views)
    return "–" if cost is None else f"{cost:.1f}"


def leads(found: list[Cell]) -> str:
    """MALL beside the nearest rival with the same views, and beside itself without the normalized cut."""
    rows, networks = [], _confirming(found)
    for ours in found[0]["leads"]:
        for other in [label for label in _labels(found) if beside(ours, label) and label.split()[0] not in FAR]:
            confirming = _beside(networks, ours, other) if networks else []
            rows.append(
                [f"{ours} over {other}", *_beside(found, ours, other), _behind(_leads(found, ours, other)), *confirming]
            )
    heads = ["pooled", "mean per frame ± standard error", "worst cell"]
    behind = f"cells behind by over {BEHIND} (by more than two standard errors over frames)"
    confirmed = [f"confirming: {head}" for head in heads] if networks else []
    return markdown_table(["", *heads, behind, *confirmed], rows)


def _behind(pairs: Sequence[Sequence[float]]) -> str:
    """How many cells lose more than `BEHIND` pooled, and of how many the frames tell it from chance."""
    lost = sum(pooled < -BEHIND for pooled, _, _ in pairs)
    told = sum(frames + 2 * error < -BEHIND for _, frames, error in pairs)
    return f"{lost} of {len(pairs)} ({told})"


def _beside(found: Sequence[Cell], ours: str, other: str) -> list[str]:
    pairs = _leads(found, ours, other)
    if not pairs:
        return ["–"] * 3
    pooled, frames, errors = (np.array(column) for column in zip(*pairs, strict=True))
    error = _error_over_frames(found, ours, other)
    if error is None:  # as if no two networks saw the same frames
        error = float(np.sqrt((errors**2).sum()) / len(errors))
    return [f"{pooled.mean():+.2f}", f"{frames.mean():+.2f} ± {error:.2f}", f"{pooled.min():+.2f}"]


def _error_over_frames(found: Sequence[Cell], ours: str, other: str) -> float | None:
    """The standard error of the mean lead, networks averaged on each frame; None where frames' figures are not kept."""
    differences: dict[str, list[Any]] = {}
    for cell in found:
        each = cell.get("each_frame")
        if each is None:
            return None
        if other in cell["leads"][ours]:
            differences.setdefault(cell["stream"], []).append(np.subtract(each[ours], each[other]))
    cells = sum(map(len, differences.values()))
    parts = [
        (len(networks) / cells) ** 2 * np.mean(networks, axis=0).var(ddof=1) / len(networks[0])
        for networks in differences.values()
    ]
    return float(np.sqrt(sum(parts)))


def by_network(found: list[Cell]) -> str:
    """Mean gain over the streams, one row per network."""
    return _by(found, "model", "network")


def by_stream(found: list[Cell]) -> str:
    """Mean gain over the networks, one row per stream."""
    return _by(found, "stream", "stream")


def _by(found: list[Cell], key: str, head: str) -> str:
    labels = [label for label in _labels(found) if label != "source"]
    rows = []
    for name in dict.fromkeys(cell[key] for cell in found):
        here = [cell for cell in found if cell[key] == name]
        source = mean(cell["methods"]["source"]["mIoU"] for cell in here)
        marked = f"{name} (chose)" if name in CHOSE else name
        rows.append(
            [marked, f"{source:.1f}", *(f"{mean(_gain(cell, label) for cell in here):+.2f}" for label in labels)]
        )
    return markdown_table([head, "source: mIoU %", *labels], rows)


def savings(found: list[Cell]) -> str:
    """What the candidates for the preset `fast` keep, on the networks that choose: plans/carry-over-choice.toml."""
    streams = list(dict.fromkeys(cell["stream"] for cell in found))
    rows = []
    for label in sorted(_labels(found), key=lambda label: -mean(_gain(cell, label) for cell in found)):
        gains = [_gain(cell, label) for cell in found]
        each = (mean(_gain(cell, label) for cell in found if cell["stream"] == stream) for stream in streams)
        rows.append([label, f"{mean(gains):+.2f}", f"{min(gains):+.2f}", *(f"{gain:+.2f}" for gain in each)])
    return markdown_table(["method", "mean gain", "worst cell", *streams], rows)


def parts(found: list[Cell]) -> str:
    """What MALL-domain loses without each of its parts, at dusk, night and on BDD100K: plans/carry-over-parts.toml."""
    ours, rows = "mall-domain", []
    for other in sorted((label for label in _labels(found) if label.startswith(f"{ours} ")), key=_mean_lead(found)):
        without = other.removeprefix(f"{ours} ")
        views = [word.removeprefix("views=").split(",") for word in without.split() if word.startswith("views=")]
        saved = passes_of(parse_views(VIEWS)) - passes_of(parse_views(views[0])) if views else 0.0
        gain = mean(_gain(cell, other) for cell in found)
        rows.append(
            [
                without,
                f"{gain:+.2f}",
                *_beside(found, ours, other),
                *_beside(_confirming(found), ours, other)[:2],
                f"{saved:g}",
            ]
        )
    rows.append(["– (all parts)", f"{mean(_gain(cell, ours) for cell in found):+.2f}", *["–"] * 6])
    heads = ["changed", "mean gain", "the whole over it: pooled", "mean per frame ± standard error", "worst cell"]
    return markdown_table(
        [*heads, "confirming: pooled", "confirming: mean per frame ± standard error", "passes it saves"], rows
    )


def _mean_lead(found: Sequence[Cell]) -> Callable[[str], float]:
    return lambda other: -mean(pair[0] for pair in _leads(found, "mall-domain", other))


def _harm_beside(name: str, base: Mapping[str, str]) -> Callable[[], str]:
    """MALL-domain in another plan beside `base`, which names a row of each other record, on that plan's cells."""

    def table() -> str:
        records = {each: benchmark_record(each) for each in (name, *base)}
        if any(record is None for record in records.values()):
            return "not measured"
        of = {each: record["cells"] for each, record in records.items() if record is not None}
        known = {(cell["model"], cell["stream"]): (cell, row) for each, row in base.items() for cell in of[each]}
        same = [_alone(*known[cell["model"], cell["stream"]]) for cell in of[name]]
        rows = [["mall-domain", *_harm_row(same, "mall-domain")]]
        rows += [[label, *_harm_row(of[name], label)] for label in _labels(of[name]) if label != "source"]
        heads = ["mean gain", "range over cells", "cells below source − 0.5"]
        heads += ["frames that lose over 5 points of accuracy", "of these by day and on BDD100K", "the worst frame"]
        return markdown_table(["", *heads, "the guard saw"], rows)

    return table


def _alone(cell: Cell, label: str) -> Cell:
    """The cell with one of its rows, as `mall-domain`."""
    return {**cell, "methods": {"mall-domain": cell["methods"][label]}}


def _harm_row(cells: Sequence[Cell], label: str) -> list[str]:
    gains = [_gain(cell, label) for cell in cells]
    return [
        f"{mean(gains):+.2f}",
        *_spread(gains),
        _harmed(cells, label),
        _harmed([cell for cell in cells if cell["stream"] in DAY], label),
        f"{min(cell['methods'][label]['worst_frame'] for cell in cells):+.1f}",
        _seen(cells, label),
    ]


def every_cell(found: list[Cell]) -> str:
    """Each network on each stream, by MALL's defaults and presets and by the nearest rival, with MALL's steps too."""
    labels = [each for each in _labels(found) if each.split()[0] not in (*FAR, "source") and "vector_rate" not in each]
    rows = [
        [
            cell["model"],
            f"{cell['stream']} ({cell['frames']})",
            f"{cell['methods']['source']['mIoU']:.2f}",
            *(f"{_gain(cell, label):+.2f}" for label in labels),
            f"{cell['methods']['mall-domain']['worst_frame']:+.1f}",
        ]
        for cell in found
    ]
    return markdown_table(
        ["network", "stream (frames)", "source", *labels, "mall-domain: worst frame's accuracy"], rows
    )


TABLES = {
    "carry-over": _table(summary),
    "carry-over-leads": _table(leads),
    "carry-over-networks": _table(by_network),
    "carry-over-streams": _table(by_stream),
    "carry-over-cells": _table(every_cell),
    "carry-over-fresh": _table(summary, FRESH),
    "carry-over-fresh-leads": _table(leads, FRESH),
    "carry-over-fresh-streams": _table(by_stream, FRESH),
    "carry-over-fresh-cells": _table(every_cell, FRESH),
    "carry-over-native": _table(by_network, NATIVE),
    "carry-over-native-leads": _table(leads, NATIVE),
    "carry-over-savings": _table(savings, CHOICE),
    "carry-over-parts": _table(parts, PARTS),
    "carry-over-guard": _harm_beside(GUARD, {RECORD: "mall-domain", FRESH: "mall-domain"}),
    "carry-over-fit": _harm_beside(FIT, {RECORD: "mall-domain"}),
    "carry-over-large": _table(every_cell, LARGE),
    "carry-over-lamps": _table(by_network, LAMPS),
}


if __name__ == "__main__":
    main()
