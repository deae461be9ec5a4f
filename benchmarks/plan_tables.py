"""The tables that the records of plans make: methods beside each other, with what became of their updates."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from statistics import mean

from allweather.methods import METHODS
from allweather.report.collect import Group, against, group_records
from allweather.report.refusals import COLUMN, MARK, cell, explained, measures_guard, together
from allweather.report.tables import OVER, figure_of_parts
from benchmarks.committed import markdown_table, pair, plain, plan_records

Row = Sequence[str]


def camvid() -> str:
    """Rows of plans/camvid.toml for the larger network, dusk and day side by side; means over orders."""
    return _beside("camvid", "espnetv2:2.0")


def camvid_smaller() -> str:
    """The same for the smaller network."""
    return _beside("camvid", "espnetv2:1.0")


def _beside(plan: str, model: str) -> str:
    beside = [record for record in plan_records(f"{plan}-views") if record["run"]["method"]["name"] != "source"]
    groups = [group for group in group_records(plan_records(plan) + beside) if group.model == model]
    order = list(METHODS)
    groups.sort(key=lambda group: (group.preset == "paper", order.index(group.method), bool(group.fields)))
    columns = {split: [group for group in groups if group.stream == f"camvid-{split}"] for split in ("dusk", "day")}
    return _grid(columns, apart=True)


def widths() -> str:
    """Rows of plans/camvid-widths.toml, dusk and day of the narrow network before those of the wide one."""
    groups = group_records(plan_records("camvid-widths"))
    columns: dict[str, list[Group]] = {}
    for width, split in product(("0.5", "1.5"), ("dusk", "day")):
        wanted = f"espnetv2:{width}", f"camvid-{split}"
        columns[f"{width}, {split}"] = [group for group in groups if (group.model, group.stream) == wanted]
    return _grid(columns)


def clear() -> str:
    """Rows of plans/clear-camvid.toml and plans/clear-scenes.toml: every default on a clear day."""
    heads = {"CamVid's day": "clear-camvid", "clear scenes": "clear-scenes"}
    return _grid({head: group_records(plan_records(plan)) for head, plan in heads.items()})


def _grid(columns: dict[str, list[Group]], apart: bool = False) -> str:
    """mIoU in % and its change to the source: two columns for each of `columns`, a row for each method.

    What became of the updates stands beside each of them where `apart`, else in one column for all.
    """
    found = {head: {group.label: group for group in groups} for head, groups in columns.items()}
    labels = list(dict.fromkeys(label for rows in found.values() for label in rows))
    if "source" not in labels:
        return "not measured"
    beside = f"{COLUMN} | " if apart else ""
    heads = ["method", *(f"{head}: mIoU % | vs source" + (f" | {COLUMN}" if apart else "") for head in found)]
    heads += [] if apart else [f"{COLUMN}, all together"]
    rows = []
    for label in labels:
        here = [groups.get(label) for groups in found.values()]
        figures = [_figures(group, groups, bool(beside)) for group, groups in zip(here, found.values(), strict=True)]
        row = [label, *(text for column in figures for text in column)]
        rows.append(row if apart else [*row, cell(together([group.decisions for group in here if group])) or "–"])
    return table(heads, rows)


def _figures(group: Group | None, beside: dict[str, Group], decisions: bool) -> list[str]:
    """mIoU, marked where it measures the guard, its change to the source, and the decisions where wanted."""
    if group is None or "source" not in beside:
        return ["–"] * (3 if decisions else 2)
    figures = pair(group.mean("mIoU"), beside["source"].mean("mIoU"), _mark(group))
    return [*figures, *([cell(group.decisions) or "–"] if decisions else [])]


def _mark(group: Group) -> str:
    return f" {MARK}" if measures_guard(group.decisions) else ""


def rivals() -> str:
    """Every method on dusk at its defaults and with its mirror image, and MALL's lead on the better with that."""
    groups = group_records(plan_records("camvid") + plan_records("camvid-rivals"))
    shown = [group for group in groups if (group.stream, group.model) == ("camvid-dusk", "espnetv2:2.0")]
    default = {group.method: group for group in shown if group.preset == "recommended" and not group.fields}
    mirrored = {group.method: group for group in shown if group.fields and group.views == ("plain", "mirror")}
    if not {"source", "cotta"} <= set(default) or not {"mall-sample", "mall-domain"} <= set(mirrored):
        return "not measured"
    rows = []
    for name, group in sorted(default.items(), key=lambda row: -row[1].mean("mIoU")):
        twice = mirrored.get(name)
        better = twice if twice is not None and twice.mean("mIoU") > group.mean("mIoU") else group
        ours = ("mall-sample", "mall-domain")
        unequal = " †" if twice is None else ""
        leads = ["–" if name.startswith("mall") else _lead(mirrored[mine], better) + unequal for mine in ours]
        with_mirror = "–" if twice is None else f"{twice.mean('mIoU'):.2f}{_mark(twice)}"
        figures = pair(group.mean("mIoU"), default["source"].mean("mIoU"), _mark(group))
        rows.append([name, *figures, with_mirror, *leads, _cell(group)])
    heads = ["method", "mIoU %", "vs source", "with the mirror image", "lead of mall-sample", "lead of mall-domain"]
    return table([*heads, COLUMN], rows)


def _lead(mine: Group, rival: Group) -> str:
    """The paired difference in points with its interval over images."""
    found = against(mine, rival)
    if found is None:
        return "–"
    return f"{100 * found.value:+.2f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def tuning() -> str:
    """Rows of plans/camvid-tuning.toml: every method's default and its other settings, the best first."""
    rows: dict[str, list[Group]] = {}
    for group in group_records(plan_records("camvid-tuning")):
        rows.setdefault(group.method, []).append(group)
    if not rows:
        return "not measured"
    shown = []
    for name, groups in sorted(rows.items(), key=lambda row: -max(group.mean("mIoU") for group in row[1])):
        best = sorted(groups, key=lambda group: -group.mean("mIoU"))
        default = [_value(group) for group in best if not group.fields]
        others = [f"{_changed(group)}: {_value(group)}" for group in best if group.fields]
        runs = [run for group in groups for run in group.decisions]
        shown.append([name, *(default or ["–"]), " · ".join(others) or "–", cell(runs) or "–"])
    return table(["method", "default", "the others", f"{COLUMN}, over the settings"], shown)


def _changed(group: Group) -> str:
    return ", ".join(f"{key} {plain(value)}" for key, value in group.fields)


def _value(group: Group) -> str:
    return f"{group.mean('mIoU'):.2f}{_mark(group)}"


def tuned() -> str:
    """What the defaults were chosen on, from the records of plans/camvid-tuning.toml and the lab notes."""
    settings = Counter(group.method for group in group_records(plan_records("camvid-tuning")))
    several = sorted({number for number in settings.values() if number > 1})
    if not several:
        return "not measured"
    untouched = ", ".join(f"`{name}`" for name in METHODS if name not in settings)
    return (
        "The defaults were chosen on CamVid's dusk frames with ESPNetv2 2.0: MALL's among some forty settings (lab "
        "notes), and on ESPNetv2 1.0 and 2.0, CGNet and EDANet at dusk, at night and by day its views and the length "
        "of its steps (docs/results/carry-over.md), and with BDD100K the scaling of its prediction among thirteen (lab "
        "notes); "
        f"every other method's among {' or '.join(map(str, several))}, its default included, on every second frame "
        f"(`plans/camvid-tuning.toml`); {untouched}, which needs source images, was left as it is. So dusk figures of "
        "the defaults are optimistic, MALL's most of all; nothing was searched on ESPNetv2 0.5 and 1.5, but the "
        "guard's strikes were decided on cells of 0.5."
    )


def weather_rounds() -> str:
    """Ten rounds of procedural weather."""
    return _rounds("weather-rounds")


def camvid_rounds() -> str:
    """Ten rounds of CamVid's day and dusk."""
    return _rounds("camvid-rounds")


def camvid_rounds_networks() -> str:
    """The same on other networks."""
    return _rounds("camvid-rounds-networks", network=True)


def _rounds(plan: str, network: bool = False) -> str:
    """Mean mIoU over a round's pieces, rounds 1, 2, 5 and the last, and the share of frames that were adapted to."""
    groups = group_records(plan_records(plan))
    if not groups:
        return "not measured"
    figure = figure_of_parts(groups)
    numbers = list(dict.fromkeys(piece.partition("/")[0] for piece in groups[0].pieces))
    shown = [number for number in numbers if int(number) in (1, 2, 5, len(numbers))]
    heads = [
        *["network"] * network,
        "method",
        *(f"round {int(number)}" for number in shown),
        "last − first",
        "updates per frame",
    ]
    rows = [
        [*[group.model] * network, group.marked, *_round(group, numbers, shown, figure), _cell(group)]
        for group in groups
    ]
    return f"{table([*heads, 'ms per frame', COLUMN], rows)} mIoU in %, over the classes {OVER[figure]}."


def _round(group: Group, numbers: Sequence[str], shown: Sequence[str], figure: str) -> list[str]:
    means = {number: _mean_of_round(group, number, figure) for number in numbers}
    updates = mean(group.per_image("iterations") or [0])
    cells = [f"{means[number]:.2f}" for number in shown]
    return [*cells, f"{means[numbers[-1]] - means[numbers[0]]:+.2f}", f"{updates:.2f}", f"{1000 * group.seconds:.0f}"]


def _mean_of_round(group: Group, number: str, figure: str) -> float:
    """Mean over a round's pieces of a figure in %."""
    found = [group.piece(piece, figure) for piece in group.pieces if piece.startswith(f"{number}/")]
    return mean(value for value in found if value is not None)


def _cell(group: Group) -> str:
    return cell(group.decisions) or "–"


def table(heads: Row, rows: Sequence[Row]) -> str:
    """Markdown, and below it what the decisions mean."""
    return f"{markdown_table(heads, rows)}\n\n{explained(rows)}"


PLAN_TABLES: dict[str, Callable[[], str]] = {
    "tuned": tuned,
    "camvid": camvid,
    "camvid-smaller": camvid_smaller,
    "widths": widths,
    "clear": clear,
    "rivals": rivals,
    "tuning": tuning,
    "weather-rounds": weather_rounds,
    "camvid-rounds": camvid_rounds,
    "camvid-rounds-networks": camvid_rounds_networks,
}
