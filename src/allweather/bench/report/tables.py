"""The tables of a report that say how good each method is, from groups of records alone."""

from collections.abc import Sequence

import numpy as np

from allweather.bench.report.collect import Group, against, changes, not_in_truth, source_of
from allweather.bench.report.published import (
    OTHER_SETTINGS,
    SECTION4,
    TABLE4,
    THIRTEEN,
    Published,
    published,
    table4,
)
from allweather.bench.report.table import Cell, Table
from allweather.classes import CITYSCAPES

EXTREMES = 3  # images named at either end


def result_tables(groups: Sequence[Group]) -> list[Table]:
    """Every table of results that the groups have something for."""
    return [*_conditions(groups), *_results(groups), *_thirteen(groups), *_sequences(groups), *_classes(groups)]


def _conditions(groups: Sequence[Group]) -> list[Table]:
    """mIoU of each method under each condition, the paper's row below ours."""
    made = []
    for how, scoring in dict.fromkeys((one.how, one.scoring) for one in groups):
        inside = [one for one in groups if (one.how, one.scoring) == (how, scoring) and one.free_iterations is None]
        streams = list(dict.fromkeys(one.where for one in inside))
        if len(streams) < 2:
            continue
        rows: list[list[Cell]] = []
        notes: list[Published] = []
        for network, label in sorted({(one.network, one.label): None for one in inside}, key=lambda key: key[0]):
            found = {one.where: one for one in inside if (one.network, one.label) == (network, label)}
            rows.append([network, label, *_with_mean([found[s].mean("mIoU") if s in found else None for s in streams])])
            theirs = {stream: published(one) for stream, one in found.items()}
            if any(theirs.values()):
                shown = [entry.marked if (entry := theirs.get(stream)) else None for stream in streams]
                rows.append([network, f"{label}, published", *shown, None])
                notes += [entry for entry in theirs.values() if entry]
        note = f"mIoU in %, mean over seeds and orders, {_over(inside)}. {_remarks(notes)}"
        title = f"By condition: {how}, scored at {_scored(scoring)}"
        made.append(Table(title, ("network", "method", *streams, "mean"), rows, note.strip(), grouped=True))
    return made


def _with_mean(values: Sequence[float | None]) -> list[Cell]:
    present = [value for value in values if value is not None]
    return [*values, float(np.mean(present)) if len(present) == len(values) else None]


def _results(groups: Sequence[Group]) -> list[Table]:
    made = []
    for where, how, scoring in dict.fromkeys((one.where, one.how, one.scoring) for one in groups):
        inside = [one for one in groups if (one.where, one.how, one.scoring) == (where, how, scoring)]
        notes = [entry for one in inside if (entry := published(one))]
        note = (
            f"mIoU in %, {_over(inside)}; ± is the standard deviation over seeds and orders; intervals are "
            "bootstrapped over images."
        )
        if any(_differs(one) for one in inside):
            note += " official: mIoU over the classes true or predicted, which one stray pixel adds to."
        made.append(
            Table(
                f"{where}, {how}, scored at {_scored(scoring)}",
                ("network", "method", "mIoU", "vs source", "95 % paired", "95 % of images", "official", "± runs",
                 "runs", "UIoU", "calibration error", "NCut", "published"),
                [_result(one, groups, any(_differs(other) for other in inside)) for one in inside],
                f"{note} {_remarks(notes)}".strip(),
                grouped=True,
            )
        )  # fmt: skip
    return made


def _result(one: Group, groups: Sequence[Group], official: bool) -> list[Cell]:
    source, entry = source_of(one, groups), published(one)
    paired = None if source is None or one.is_source else against(one, source)
    low, high = one.interval
    uncertain = one.mean("mUIoU")
    return [
        one.network, one.label, one.mean("mIoU"), None if paired is None else f"{100 * paired.value:+.2f}",
        None if paired is None else f"{100 * paired.low:+.2f} to {100 * paired.high:+.2f}",
        f"{low:.1f} to {high:.1f}", one.official_miou if official else None, one.spread, len(one.records),
        None if np.isnan(uncertain) else uncertain,
        f"{one.mean('calibration_error'):.3f}", one.mean("ncut"), None if entry is None else entry.marked,
    ]  # fmt: skip


def _differs(one: Group) -> bool:
    """Whether the official mIoU is another figure than that over the classes in the truth."""
    return abs(one.official_miou - one.mean("mIoU")) >= 0.005


def _over(groups: Sequence[Group]) -> str:
    """Which classes the means are over, in words."""
    absent = dict.fromkeys(name for one in groups for name in not_in_truth(one.records[0]))
    total = len(groups[0].records[0]["figures"]["IoU"])
    if not absent:
        return f"over all {total} classes, which the truth holds"
    return f"over the classes in each stream's truth (of {total}; not everywhere in it: {', '.join(absent)})"


def _remarks(entries: Sequence[Published]) -> str:
    marks = dict.fromkeys(f"† {entry.table}: {entry.differs}." for entry in entries if entry.differs)
    same = dict.fromkeys(entry.table for entry in entries if not entry.differs)
    return " ".join([*(f"{table}: the same setting as far as it is stated." for table in same), *marks])


def _thirteen(groups: Sequence[Group]) -> list[Table]:
    """Means over the paper's thirteen sets, for methods that have them all."""
    rows: list[list[Cell]] = []
    for network, label, how, scoring in dict.fromkeys((o.network, o.label, o.how, o.scoring) for o in groups):
        key = (network, label, how, scoring)
        found = {o.stream: o for o in groups if (o.network, o.label, o.how, o.scoring) == key and o.where == o.stream}
        if set(THIRTEEN) <= set(found):
            one = found[THIRTEEN[0]]
            paper = SECTION4.get(one.model) if one.method == "mall-sample" else None
            mark = "" if one.preset == "paper" and scoring == "1024x512" else "†"
            mean = float(np.mean([found[name].mean("mIoU") for name in THIRTEEN]))
            rows.append([network, f"{label}, {how}, {scoring}", mean, None if paper is None else f"{paper}{mark}"])
    note = (
        "Mean of the thirteen mIoU, in %, each over the classes in its truth. Published in section 4, which states "
        "neither the networks' sizes nor the scoring; the authors' code scores at 1024×512. † scored otherwise, or "
        f"{OTHER_SETTINGS}."
    )
    columns = ("network", "method", "mIoU", "published")
    return [Table("Mean over thirteen datasets", columns, rows, note, grouped=True)] if rows else []


def _sequences(groups: Sequence[Group]) -> list[Table]:
    made = []
    for where in dict.fromkeys(one.where for one in groups if "parts" in one.records[0]):
        inside = [one for one in groups if one.where == where and "parts" in one.records[0]]
        rows: list[list[Cell]] = []
        rounds = list(inside[0].records[0]["parts"])
        figure = _figure_of_parts(inside)
        kinds = list(dict.fromkeys(part.partition("/")[2] for part in rounds))
        for one in inside:
            for number in dict.fromkeys(part.partition("/")[0] for part in rounds):
                values = [_part(one, f"{number}/{kind}", figure) for kind in kinds]
                rows.append([f"{one.network}, {one.label}, {one.how}", f"round {int(number)}", *_with_mean(values)])
        columns = ("network, method", "round", *kinds, "mean")
        over = "in each piece's truth" if figure == "mIoU_truth" else "true or predicted in each piece (official)"
        note = f"mIoU in %, over the classes {over}."
        made.append(Table(f"{where}: piece by piece", columns, rows, note, grouped=True))
    return made


def _figure_of_parts(groups: Sequence[Group]) -> str:
    """The figure that every piece of every record has: older records hold the official one alone."""
    pieces = [piece for one in groups for record in one.records for piece in record["parts"].values()]
    return "mIoU_truth" if all("mIoU_truth" in piece for piece in pieces) else "mIoU"


def _part(one: Group, part: str, figure: str) -> float | None:
    return _mean([record["parts"].get(part, {}).get(figure) for record in one.records])


def _classes(groups: Sequence[Group]) -> list[Table]:
    made = []
    for where, how, scoring in dict.fromkeys((one.where, one.how, one.scoring) for one in groups):
        inside = [
            one for one in groups
            if (one.where, one.how, one.scoring) == (where, how, scoring) and one.free_iterations is None
        ]  # fmt: skip
        if not inside:
            continue
        names = list(inside[0].records[0]["figures"]["IoU"])
        rows: list[list[Cell]] = [
            [one.network, one.label, *(_mean([r["figures"]["IoU"][name] for r in one.records]) for name in names)]
            for one in inside
        ]
        note = "In %; – where a class is neither true nor predicted."
        if inside[0].stream.startswith("dark-zurich") and tuple(names) == CITYSCAPES.names:
            rows += [["published in Table 4, test split by the server †", name, *table4(name)[:-1]] for name in TABLE4]
            note += " † another split than ours, unless ours is the test split too."
        title = f"IoU of each class: {where}, {how}, scored at {_scored(scoring)}"
        made.append(Table(title, ("network", "method", *names), rows, note, 1, grouped=True))
    return made


def harm_tables(groups: Sequence[Group]) -> list[Table]:
    """Where adaptation hurt: how many images lost, by how much, and which."""
    rows: list[list[Cell]] = []
    for one in groups:
        source = source_of(one, groups)
        if source is None or one.is_source or one.free_iterations is not None:
            continue
        found = changes(one, source)
        if not found:
            continue
        lost = [change for _, change in found if change < 0]
        rows.append(
            [
                f"{one.where}, {one.network}, {one.how}", one.label, f"{len(lost)} of {len(found)}",
                float(np.mean(lost)) if lost else None,
                _named([entry for entry in found if entry[1] < 0]),
                _named([entry for entry in found[::-1] if entry[1] > 0]),
                sum(len(record["rolled_back"]) for record in one.records),
            ]
        )  # fmt: skip
    columns = (
        "stream, network", "method", "images that lost", "their mean", "lost most", "won most", "rolled back",
    )  # fmt: skip
    note = (
        "Change of each image's own mIoU against the source, in points, over the classes in its truth; rolled back: in "
        "all runs together."
    )
    return [Table("Where adaptation hurt", columns, rows, note, 1, grouped=True, stacked=True)] if rows else []


def _named(images: Sequence[tuple[str, float]]) -> str:
    return "; ".join(f"{name} {change:+.1f}" for name, change in images[:EXTREMES]) or "none"


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def _scored(scoring: str) -> str:
    return "native size" if scoring == "native" else f"{scoring.replace('x', '×')} (the authors' way)"
