"""The figures of a report as inline SVG: gains, mIoU and normalized cut against iterations, reliability."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import numpy as np

from allweather.errors import optional
from allweather.report.collect import Group, against, source_of
from allweather.runs.decisions import refused
from allweather.runs.summary import reliability_of

BLUE, ORANGE, GREY = "#1f5fa8", "#c8641e", "#777777"  # told apart in grey print too, by their line styles
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE = {
    "svg.hashsalt": "allweather",  # the same records make the same page
    "font.size": 10,
    "text.parse_math": False,  # names may hold two $, as paths with variables do
}
WIDTH = 4.9  # inches: about a phone's, so that letters keep their size


@contextmanager
def _styled() -> Iterator[None]:
    """Our style, within the block; what the caller draws elsewhere keeps the caller's."""
    with _pyplot().rc_context(STYLE):
        yield


def gains(groups: Sequence[Group]) -> dict[str, str]:
    """Title → SVG of each method's difference to the source with its interval, a figure per stream and network."""
    made: dict[str, str] = {}
    for setting in dict.fromkeys(group.setting for group in groups):
        inside = [
            group for group in groups
            if group.setting == setting and not group.is_source and group.on_its_own
        ]  # fmt: skip
        found = [(group.marked, against(group, source)) for group in inside if (source := source_of(group, groups))]
        shown = [(label, interval) for label, interval in found if interval is not None]
        if shown:
            made[f"Against the source: {inside[0].place}"] = _gains(shown)
    return made


def curves(groups: Sequence[Group]) -> dict[str, str]:
    """Title → SVG for every network, stream and method that was run with fixed numbers of iterations."""
    made: dict[str, str] = {}
    for (_, method), (points, ruled, source) in by_iterations(groups).items():
        title = f"{method} on {points[0].place}: mIoU and NCut against iterations"
        made[title] = _curve(([source] if source else []) + points, ruled)
    return made


def by_iterations(
    groups: Sequence[Group],
) -> dict[tuple[tuple[str, str, str, str], str], tuple[list[Group], list[Group], Group | None]]:
    """(setting, method) → runs of fixed numbers of iterations in ascending order, those that stop, the source.

    Passes over a stream have a rule of their own: which of these stop is not said. A method has its other fields beside
    its name where there are several curves of it.
    """
    free = [group for group in groups if not group.on_its_own]
    made = {}
    for setting, method in dict.fromkeys((group.setting, group.series) for group in free):
        kin = [group for group in groups if group.on_curve and (group.setting, group.series) == (setting, method)]
        points = [group for group in kin if not group.on_its_own]
        points.sort(key=lambda group: group.free_iterations or 0)
        stopped = [group for group in kin if group.on_its_own and not group.in_passes]
        name = kin[0].method
        others = {group.series for group in free if (group.setting, group.method) == (setting, name)} - {method}
        made[setting, method if others else name] = points, stopped, source_of(points[0], groups)
    return made


def reliability(groups: Sequence[Group]) -> dict[str, str]:
    """Title → SVG of accuracy against confidence, the methods of one setting together."""
    made = {}
    for setting in dict.fromkeys(group.setting for group in groups):
        inside = [group for group in groups if group.setting == setting and group.on_its_own]
        if inside:
            made[f"Reliability: {inside[0].place}"] = _diagram(inside)
    return made


@_styled()
def _gains(shown: Sequence[tuple[str, Any]]) -> str:
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(WIDTH, 0.7 + 0.27 * len(shown)))
    axes.axvline(0, color=GREY, linewidth=1)
    for row, (_, interval) in enumerate(shown):
        low, value, high = (100 * number for number in (interval.low, interval.value, interval.high))
        color = BLUE if value >= 0 else ORANGE
        axes.plot([low, high], [row, row], "-" if value >= 0 else "--", color=color, linewidth=2)
        axes.plot([value], [row], "o" if value >= 0 else "s", color=color)
    axes.set_yticks(range(len(shown)), [label for label, _ in shown])
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel="mIoU minus the source's, points")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return _svg(figure)


@_styled()
def _curve(points: Sequence[Group], ruled: Sequence[Group]) -> str:
    pyplot = _pyplot()
    figure, left = pyplot.subplots(figsize=(WIDTH, 3.3))
    right = left.twinx()
    steps, miou = [group.free_iterations or 0 for group in points], [group.mean("mIoU") for group in points]
    left.plot(steps, miou, "-", color=BLUE, label="mIoU")
    right.plot(steps, [group.mean("ncut") for group in points], "s--", color=ORANGE, label="NCut", markersize=4)
    held = [any(map(refused, group.decisions)) for group in points]
    for kind, fill, said in ((False, BLUE, None), (True, "white", "the guard refused updates")):
        at = [index for index, value in enumerate(held) if value == kind]
        if at:
            x, y = [steps[index] for index in at], [miou[index] for index in at]
            left.plot(x, y, "o", color=BLUE, markerfacecolor=fill, label=said)
    for number, (group, made) in enumerate((group, made) for group in ruled if (made := group.per_image("iterations"))):
        where, said = float(np.mean(made)), None if number else "early stopping"
        left.axvline(where, color=GREY, linestyle=":")
        left.plot([where], [group.mean("mIoU")], "*", color="black", markersize=13, label=said, zorder=5)
    left.set_xlabel("iterations per batch")
    left.set_ylabel("mIoU in %", color=BLUE)
    right.set_ylabel("normalized cut", color=ORANGE)
    _legend(figure, [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]])
    return _svg(figure)


@_styled()
def _diagram(inside: Sequence[Group]) -> str:
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(WIDTH, 4.4))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    drawn: list[Any] = []  # the axes would leave out names that begin with _
    for index, group in enumerate(inside):
        style = ("-", "--", "-.", ":")[index % 4]
        sure, right = reliability_of(group.records[0])
        mark = MARKS[index % len(MARKS)]
        name = f"{group.marked}{group.first}"
        drawn += axes.plot(sure, right, style, marker=mark, markersize=4, linewidth=1.2, label=name)
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    _legend(figure, drawn)
    return _svg(figure)


def _legend(figure: Any, handles: Sequence[Any]) -> None:
    """Below the axes, where it covers nothing."""
    labels = [handle.get_label() for handle in handles]
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False)


def _svg(figure: Any) -> str:
    figure.tight_layout()
    drawing = brief_svg(figure, bbox_inches="tight", pad_inches=0.05)
    _pyplot().close(figure)
    return drawing


def brief_svg(figure: Any, **options: Any) -> str:
    """A Matplotlib figure as SVG without what nobody sees: indents, unused names, digits beyond a hundredth."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, **options)
    text = buffer.getvalue()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r' id="([^"]+)"', lambda name: name[0] if f"#{name[1]}" in text else "", text)
    text = re.sub(r"(?<![\d.])[1-9]\d*\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text)  # not 0.0156, a scale
    return _with_classes(re.sub(r"(?m)^ +| +$", "", text))


def _with_classes(drawing: str) -> str:
    """The drawing with styles that come again as classes; the name of one is the same in any drawing of a page."""
    often = [style for style, times in Counter(re.findall(r' style="([^"]+)"', drawing)).items() if times > 2]
    rules = ""
    for style in often:
        name = f"s{crc32(style.encode()):x}"
        drawing = drawing.replace(f' style="{style}"', f' class="{name}"')
        rules += f".{name}{{{style}}}\n"
    return drawing.replace("</style>", f"\n{rules}</style>", 1)


def _pyplot() -> Any:
    optional("matplotlib", "report").use("svg")
    return optional("matplotlib.pyplot", "report")
