"""The tables of a report, each from groups of records alone."""

from collections.abc import Sequence

import numpy as np

from allweather.bench.report.collect import Group, against, changes, source_of
from allweather.bench.report.published import MILLISECONDS, SECTION4, THIRTEEN, published
from allweather.bench.report.table import Cell, Table

EXTREMES = 3  # images named at either end


def all_tables(groups: Sequence[Group]) -> list[Table]:
    """Every table that the groups have something for."""
    made = [*_results(groups), *_thirteen(groups), *_sequences(groups), *_classes(groups), *_harm(groups)]
    return [*made, _timing(groups)]


def _results(groups: Sequence[Group]) -> list[Table]:
    made = []
    for stream, protocol, scoring in dict.fromkeys((one.stream, one.protocol, one.scoring) for one in groups):
        inside = [one for one in groups if (one.stream, one.protocol, one.scoring) == (stream, protocol, scoring)]
        notes = [entry for one in inside if (entry := published(one.stream, one.model, one.method))]
        made.append(
            Table(
                f"{stream}, {protocol}, scored at {_scored(scoring)}",
                ("network", "method", "runs", "mIoU", "± runs", "95 % of images", "vs source", "95 % paired",
                 "calibration error", "NCut", "paper"),
                [_result(one, groups) for one in inside],
                "mIoU in %; ± is the standard deviation over seeds and orders; intervals are bootstrapped over images. "
                + " ".join(sorted({f"† {entry.table}: {entry.differs}." for entry in notes if entry.differs})),
            )
        )  # fmt: skip
    return made


def _result(one: Group, groups: Sequence[Group]) -> list[Cell]:
    source, entry = source_of(one, groups), published(one.stream, one.model, one.method)
    paired = None if source is None or one.is_source else against(one, source)
    low, high = np.mean([record["figures"]["interval"] for record in one.records], 0)
    paper = None if entry is None else f"{entry.figure}{'†' if entry.differs else ''}"
    return [
        one.model, one.label, len(one.records), one.mean("mIoU"), one.spread, f"{low:.1f} to {high:.1f}",
        None if paired is None else f"{100 * paired.value:+.2f}",
        None if paired is None else f"{100 * paired.low:+.2f} to {100 * paired.high:+.2f}",
        f"{one.mean('calibration_error'):.3f}", one.mean("ncut"), paper,
    ]  # fmt: skip


def _thirteen(groups: Sequence[Group]) -> list[Table]:
    """Means over the paper's thirteen sets, for methods that have them all."""
    rows: list[list[Cell]] = []
    keys = dict.fromkeys((one.model, one.label, one.method, one.protocol, one.scoring) for one in groups)
    for model, label, method, protocol, scoring in keys:
        found = {
            one.stream: one.mean("mIoU")
            for one in groups
            if (one.model, one.label, one.protocol, one.scoring) == (model, label, protocol, scoring)
        }
        if set(THIRTEEN) <= set(found):
            paper = SECTION4.get(model) if method == "mall-sample" else None
            rows.append([model, f"{label}, {protocol}, {scoring}", float(np.mean([found[n] for n in THIRTEEN])), paper])
    note = "Mean of the thirteen mIoU, in %."
    return [Table("Mean over thirteen datasets", ("network", "method", "mIoU", "paper"), rows, note)] if rows else []


def _sequences(groups: Sequence[Group]) -> list[Table]:
    made = []
    for stream in dict.fromkeys(one.stream for one in groups if "parts" in one.records[0]):
        inside = [one for one in groups if one.stream == stream and "parts" in one.records[0]]
        parts = list(inside[0].records[0]["parts"])
        rows = [
            [one.model, f"{one.label}, {one.protocol}"]
            + [float(np.mean([record["parts"][part]["mIoU"] for record in one.records])) for part in parts]
            for one in inside
        ]
        made.append(Table(f"{stream}: piece by piece", ("network", "method", *parts), rows, "mIoU in %."))
    return made


def _classes(groups: Sequence[Group]) -> list[Table]:
    made = []
    for setting in dict.fromkeys(one.setting for one in groups):
        inside = [one for one in groups if one.setting == setting and one.free_iterations is None]
        if not inside:
            continue
        names = list(inside[0].records[0]["figures"]["IoU"])
        rows: list[list[Cell]] = [
            [one.label, *(_mean([record["figures"]["IoU"][name] for record in one.records]) for name in names)]
            for one in inside
        ]
        title = f"{setting[0]}, {setting[1]}, {setting[2]}: IoU of each class"
        made.append(Table(title, ("method", *names), rows, "In %; – where a class is neither true nor predicted.", 1))
    return made


def _harm(groups: Sequence[Group]) -> list[Table]:
    rows: list[list[Cell]] = []
    for one in groups:
        source = source_of(one, groups)
        if source is None or one.is_source or one.free_iterations is not None:
            continue
        found = changes(one, source)
        if not found:
            continue
        worse = sum(change < 0 for _, change in found)
        rows.append(
            [
                f"{one.stream}, {one.model}", f"{one.label}, {one.protocol}", f"{worse} of {len(found)}",
                _named([entry for entry in found if entry[1] < 0]),
                _named([entry for entry in found[::-1] if entry[1] > 0]),
                sum(len(record["rolled_back"]) for record in one.records),
            ]
        )  # fmt: skip
    columns = ("stream, network", "method", "images that lost", "lost most", "won most", "rolled back")
    note = "Change of each image's own mIoU against the source, in points."
    return [Table("Where adaptation hurt", columns, rows, note)] if rows else []


def _named(images: Sequence[tuple[str, float]]) -> str:
    return "; ".join(f"{name} {change:+.1f}" for name, change in images[:EXTREMES]) or "none"


def _timing(groups: Sequence[Group]) -> Table:
    rows: list[list[Cell]] = []
    for one in groups:
        seconds, iterations = one.per_image("seconds"), one.per_image("iterations")
        run = one.records[0]["run"]
        per_batch = 1000 * float(np.mean(seconds)) * run["batch"] if seconds else None
        steps = float(np.mean(iterations)) if iterations else 0.0
        memory = one.records[0].get("peak_memory_mib")
        rows.append(
            [
                f"{one.model}, {run['model']['size'] or one.scoring}, batch {run['batch']}",
                f"{one.label}, {one.stream}", float(np.mean(seconds)) if seconds else None, steps,
                per_batch / steps if per_batch and steps else None, memory,
                MILLISECONDS.get((one.model, one.method)), one.records[0]["versions"]["machine"],
            ]
        )  # fmt: skip
    columns = ("network", "method", "s per image", "iterations", "ms per iteration", "peak MiB", "paper ms", "machine")
    note = "ms per iteration: of a whole batch, prediction included. The paper's: batch 12, 1024×512, hardware unknown."
    return Table("Time and memory", columns, rows, note)


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def _scored(scoring: str) -> str:
    return "native size" if scoring == "native" else f"{scoring} (the authors' way)"
