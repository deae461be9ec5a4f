"""The tables of a report that say how good each method is, from groups of records alone."""

from collections.abc import Sequence

import numpy as np

from allweather.classes import CITYSCAPES
from allweather.report.apart import scored_at
from allweather.report.collect import Group, against, source_of
from allweather.report.derived import not_in_truth
from allweather.report.harm import harm_of
from allweather.report.published import (
    OTHER_SETTINGS,
    SECTION4,
    TABLE4,
    THIRTEEN,
    Published,
    published,
    table4,
)
from allweather.report.refusals import COLUMN, cell, explained, mark, of_records, together
from allweather.report.table import Cell, Table
from allweather.scoring.means import mean_of

OVER = {  # what a figure of a piece is a mean over
    "mIoU_truth": "in each piece's truth",
    "mIoU": "true or predicted in each piece (official)",
}


def result_tables(groups: Sequence[Group]) -> list[Table]:
    """Every table of results that the groups have something for."""
    return [*_conditions(groups), *_results(groups), *_thirteen(groups), *_sequences(groups), *_classes(groups)]


def _conditions(groups: Sequence[Group]) -> list[Table]:
    """mIoU of each method under each condition, the paper's row below ours."""
    made = []
    for how, scoring in dict.fromkeys((group.how, group.scoring) for group in groups):
        inside = [group for group in groups if (group.how, group.scoring) == (how, scoring) and group.on_its_own]
        streams = list(dict.fromkeys(group.where for group in inside))
        if len(streams) < 2:
            continue
        rows: list[list[Cell]] = []
        notes: list[Published] = []
        for network, label in sorted({(group.network, group.label): None for group in inside}, key=lambda key: key[0]):
            found = {group.where: group for group in inside if (group.network, group.label) == (network, label)}
            values = _with_mean([found[s].mean("mIoU") if s in found else None for s in streams])
            runs = together([group.decisions for group in found.values()])
            rows.append([network, mark(label, runs), *values, cell(runs)])
            theirs = {stream: published(group) for stream, group in found.items()}
            if any(theirs.values()):
                shown = [entry.marked if (entry := theirs.get(stream)) else None for stream in streams]
                rows.append([network, f"{label}, published", *shown, None, None])
                notes += [entry for entry in theirs.values() if entry]
        note = f"mIoU in %, mean over seeds and orders, {_over(inside)}. {_remarks(notes)} {_explained(rows, inside)}"
        title = f"By condition: {how}, scored at {scored_at(scoring)}"
        made.append(Table(title, ("network", "method", *streams, "mean", COLUMN), rows, _evened(note), grouped=True))
    return made


def _with_mean(values: Sequence[float | None]) -> list[Cell]:
    """The values and their mean, which is none where one of them is missing."""
    return [*values, None if None in values else mean_of(values)]


def _results(groups: Sequence[Group]) -> list[Table]:
    made = []
    for where, how, scoring in dict.fromkeys((group.where, group.how, group.scoring) for group in groups):
        inside = [group for group in groups if (group.where, group.how, group.scoring) == (where, how, scoring)]
        notes = [entry for group in inside if (entry := published(group))]
        official = any(_differs(group) for group in inside)
        rows = [_result(group, groups, official) for group in inside]
        note = (
            f"mIoU in %, {_over(inside)}; ± is the standard deviation over seeds and orders; intervals are "
            "bootstrapped over images."
        )
        if official:
            note += " official: mIoU over the classes true or predicted, which one stray pixel adds to."
        made.append(
            Table(
                f"{where}, {how}, scored at {scored_at(scoring)}",
                ("network", "method", "mIoU", "vs source", "95 % paired", "95 % of images", "official", "± runs",
                 "runs", "UIoU", "calibration error", "NCut", COLUMN, "published"),
                rows,
                _evened(f"{note} {_remarks(notes)} {_explained(rows, inside)}"),
                grouped=True,
            )
        )  # fmt: skip
    return made


def _result(group: Group, groups: Sequence[Group], official: bool) -> list[Cell]:
    source, entry = source_of(group, groups), published(group)
    paired = None if source is None or group.is_source else against(group, source)
    low, high = group.interval
    uncertain = group.mean("mUIoU")
    return [
        group.network, group.marked, group.mean("mIoU"), None if paired is None else f"{100 * paired.value:+.2f}",
        None if paired is None or np.isnan(paired.low) else f"{100 * paired.low:+.2f} to {100 * paired.high:+.2f}",
        None if np.isnan(low) else f"{low:.1f} to {high:.1f}",
        group.official_miou if official else None, group.spread, len(group.records),
        None if np.isnan(uncertain) else uncertain,
        f"{group.mean('calibration_error'):.3f}", group.mean("ncut"), cell(group.decisions),
        None if entry is None else entry.marked,
    ]  # fmt: skip


def _differs(group: Group) -> bool:
    """Whether the official mIoU is another figure than that over the classes in the truth."""
    return abs(group.official_miou - group.mean("mIoU")) >= 0.005


def _over(groups: Sequence[Group]) -> str:
    """Which classes the means are over, in words."""
    absent = dict.fromkeys(name for group in groups for name in not_in_truth(group.records[0]))
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
    for key in dict.fromkeys(map(_alike, groups)):
        network, label, how, scoring = key
        found = {group.stream: group for group in groups if _alike(group) == key and group.where == group.stream}
        if set(THIRTEEN) <= set(found):
            group = found[THIRTEEN[0]]
            paper = SECTION4.get(group.model) if group.method == "mall-sample" else None
            other = "" if group.preset == "paper" and scoring == "1024x512" else "†"
            mean = float(np.mean([found[name].mean("mIoU") for name in THIRTEEN]))
            runs = together([found[name].decisions for name in THIRTEEN])
            theirs = None if paper is None else f"{paper}{other}"
            rows.append([network, mark(f"{label}, {how}, {scoring}", runs), mean, cell(runs), theirs])
    note = (
        "Mean of the thirteen mIoU, in %, each over the classes in its truth. Published in section 4, which states "
        "neither the networks' sizes nor the scoring; the authors' code scores at 1024×512. † scored otherwise, or "
        f"{OTHER_SETTINGS}. {_explained(rows, groups)}"
    )
    columns = ("network", "method", "mIoU", COLUMN, "published")
    return [Table("Mean over thirteen datasets", columns, rows, note, grouped=True)] if rows else []


def _alike(group: Group) -> tuple[str, str, str, str]:
    """What is equal in the rows of one method over several streams."""
    return group.network, group.label, group.how, group.scoring


def _sequences(groups: Sequence[Group]) -> list[Table]:
    made = []
    for where in dict.fromkeys(group.where for group in groups if group.pieces):
        inside = [group for group in groups if group.where == where and group.pieces]
        rows: list[list[Cell]] = []
        rounds = inside[0].pieces
        figure = figure_of_parts(inside)
        kinds = list(dict.fromkeys(part.partition("/")[2] for part in rounds))
        for group in inside:
            for number in dict.fromkeys(part.partition("/")[0] for part in rounds):
                values = _with_mean([group.piece(f"{number}/{kind}", figure) for kind in kinds])
                runs = of_records(group.records, f"{number}/")
                name = f"{group.network}, {group.label}, {group.how}{group.scored}"
                rows.append([name, mark(f"round {int(number)}", runs), *values, cell(runs)])
        columns = ("network, method", "round", *kinds, "mean", COLUMN)
        note = f"mIoU in %, over the classes {OVER[figure]}. {_explained(rows, inside)}"
        made.append(Table(f"{where}: piece by piece", columns, rows, note, grouped=True))
    return made


def figure_of_parts(groups: Sequence[Group]) -> str:
    """The figure, a key of `OVER`, that every piece of every record has: older records hold the official one alone."""
    pieces = [piece for group in groups for record in group.records for piece in record.get("parts", {}).values()]
    return "mIoU_truth" if all("mIoU_truth" in piece for piece in pieces) else "mIoU"


def _classes(groups: Sequence[Group]) -> list[Table]:
    made = []
    for where, how, scoring in dict.fromkeys((group.where, group.how, group.scoring) for group in groups):
        inside = [
            group for group in groups
            if (group.where, group.how, group.scoring) == (where, how, scoring) and group.on_its_own
        ]  # fmt: skip
        if not inside:
            continue
        names = list(inside[0].records[0]["figures"]["IoU"])
        rows: list[list[Cell]] = [
            [group.network, group.marked, *(_class(group, name) for name in names), cell(group.decisions)]
            for group in inside
        ]
        note = f"In %; – where a class is neither true nor predicted. {_explained(rows, inside)}"
        if inside[0].stream.startswith("dark-zurich") and tuple(names) == CITYSCAPES.names:
            rows += [
                ["published in Table 4, test split by the server †", name, *table4(name)[:-1], None] for name in TABLE4
            ]
            note += " † another split than ours, unless ours is the test split too."
        title = f"IoU of each class: {where}, {how}, scored at {scored_at(scoring)}"
        made.append(Table(title, ("network", "method", *names, COLUMN), rows, note, 1, grouped=True))
    return made


def _class(group: Group, name: str) -> float | None:
    return mean_of(record["figures"]["IoU"].get(name) for record in group.records)


def harm_tables(groups: Sequence[Group]) -> list[Table]:
    """Where adaptation hurt: how many images lost, by how much, and which."""
    rows: list[list[Cell]] = []
    for group in groups:
        source = source_of(group, groups)
        if source is None or group.is_source or not group.on_its_own:
            continue
        found = harm_of(group, source)
        if found is None:
            continue
        rows.append(
            [
                group.place, group.marked, f"{found.lost} of {found.images}",
                found.mean, _named(found.hurt), _named(found.helped), cell(group.decisions),
            ]
        )  # fmt: skip
    columns = ("stream, network", "method", "images that lost", "their mean", "lost most", "won most", COLUMN)
    note = (
        "Change of each image's own mIoU against the source, in points, over the classes in its truth"
        f"{', mean over runs' if any(group.first for group in groups) else ''}. {_explained(rows, groups)}"
    )
    return [Table("Where adaptation hurt", columns, rows, note, 1, grouped=True, stacked=True)] if rows else []


def _explained(rows: Sequence[Sequence[Cell]], groups: Sequence[Group]) -> str:
    return explained(rows, any(group.in_passes for group in groups))


def _named(images: Sequence[tuple[str, float]]) -> str:
    return "; ".join(f"{name} {change:+.1f}" for name, change in images) or "none"


def _evened(note: str) -> str:
    return " ".join(note.split())
