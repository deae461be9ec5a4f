"""Gain against cost: every method and preset at dusk, drawn from the committed records; the Pareto front is marked.

    python -m benchmarks.pareto

Cost is in forward passes of the source network per frame, by the record of `benchmarks.passes`; a view beside those of
the method's default adds what it costs. Gain is mIoU over the source's. Writes docs/gain-and-cost.png.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from allweather import methods
from allweather.report.collect import Group, group_records
from benchmarks.carry_over import VIEWS
from benchmarks.committed import ROOT, markdown_table, plan_records
from benchmarks.passes import cost_of

PLANS = ("camvid", "camvid-views", "camvid-rivals")
STREAM, MODEL = "camvid-dusk", "espnetv2:2.0"
_TICKS = (1, 2, 4, 8, 16, 32, 64)
_LOWEST = -1.0  # of the axis
_BESIDE = {tuple(VIEWS[1:]): "MALL's view"}  # how the legend calls views beside the plain one
_FRONT, _OTHER = "#0a5dc2", "#6b717b"
_LEGEND = ((0.06, "right"), (0.1, "left"), (0.84, "right"), (1.0, "right"))  # where its columns are, and end
FIGURE = ROOT / "docs" / "gain-and-cost.png"


@dataclass(frozen=True)
class Point:
    """One setting of a method: what a frame costs, in forward passes, and what it gains, in points of mIoU."""

    label: str
    cost: float
    gain: float


def points() -> list[Point]:
    """Every setting that both the plans' records and the record of passes know, by cost; none of an older recipe."""
    groups = [group for plan in PLANS for group in group_records(plan_records(plan))]
    here = {group.label: group for group in groups if (group.stream, group.model) == (STREAM, MODEL)}
    if "source" not in here:
        return []
    source = here["source"].mean("mIoU")
    found = [
        Point(_name(group), cost, group.mean("mIoU") - source)
        for group in here.values()
        if (cost := _cost(group)) is not None and not group.older
    ]
    return sorted(found, key=lambda point: (point.cost, -point.gain))


def front(found: list[Point]) -> list[Point]:
    """Those that no cheaper or equally cheap one reaches."""
    best: list[Point] = []
    for point in found:
        if not best or point.gain > best[-1].gain:
            best.append(point)
    return best


def listed() -> str:
    """The front as a table."""
    found = front(points())
    if not found:
        return "not measured"
    rows = [[point.label, f"{point.cost:.1f}", f"{point.gain:+.2f}"] for point in found]
    return markdown_table(["no cheaper setting gains more", "forward passes per frame", "mIoU over the source"], rows)


def told(found: Sequence[Point]) -> str:
    """The legend as text, which the picture carries too."""
    return "\n".join(", ".join(row(number, point)) for number, point in enumerate(found, 1))


def row(number: int, point: Point) -> tuple[str, str, str, str]:
    """A line of the legend."""
    return str(number), point.label, f"{point.cost:.1f}", f"{point.gain:+.2f}"


def draw() -> None:
    """Writes the figure."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    found = points()
    best = front(found)
    figure, (axes, legend) = pyplot.subplots(1, 2, figsize=(9.5, 5), width_ratios=(3, 1.3), layout="constrained")
    axes.plot([point.cost for point in best], [point.gain for point in best], color=_FRONT, zorder=2)
    for number, point in enumerate(found, 1):
        color, low = _FRONT if point in best else _OTHER, point.gain < _LOWEST
        axes.plot(point.cost, max(point.gain, _LOWEST), "v" if low else "o", color=color, markersize=9, zorder=3)
        axes.annotate(
            str(number), (point.cost, max(point.gain, _LOWEST)), ha="center", va="center", color="white", fontsize=5.5,
            zorder=4,
        )  # fmt: skip
        for text, (place, side) in zip(row(number, point), _LEGEND, strict=True):
            legend.text(place, 1 - number / (len(found) + 1), text, ha=side, color=color, fontsize=6.5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(_TICKS, [str(tick) for tick in _TICKS])
    axes.set_xlabel("cost of a frame, in forward passes of the source network")
    axes.set_ylabel("gain over the source, points of mIoU (triangles: lower still)")
    axes.grid(color="#e3e6ea", zorder=0)
    axes.axhline(0, color=_OTHER, linewidth=0.8)
    legend.axis("off")
    figure.savefig(FIGURE, dpi=180, metadata={"Description": told(found)})


def _name(group: Group) -> str:
    preset = "" if group.preset == "recommended" or group.method == "source" else f" ({group.preset})"
    told = group.views[1:] and group.views != tuple(methods.make(group.method, group.preset).views)
    views = f" + {_BESIDE.get(group.views[1:], ', '.join(group.views[1:]))}" if told else ""
    return f"{group.method}{preset}{views}"


def _cost(group: Group) -> float | None:
    """None for settings whose cost is not counted: fields other than the views, or several updates."""
    if dict(group.fields).keys() - {"mirror", "views"}:
        return None
    return cost_of(group.method, group.preset, group.views)


if __name__ == "__main__":
    draw()
    print(listed())
