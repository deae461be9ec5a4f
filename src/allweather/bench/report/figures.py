"""The figures of a report as inline SVG: mIoU and normalized cut against iterations, and reliability diagrams."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from allweather.bench.report.collect import Group, source_of
from allweather.errors import AllWeatherError

BLUE, ORANGE, GREY = "#1f5fa8", "#c8641e", "#777777"  # told apart in grey print too, by their line styles


def curves(groups: Sequence[Group]) -> dict[str, str]:
    """Title → SVG for every network, stream and method that was run with fixed numbers of iterations."""
    made: dict[str, str] = {}
    free = [one for one in groups if one.free_iterations is not None]
    for key in dict.fromkeys((one.setting, one.method) for one in free):
        points = sorted((one for one in free if (one.setting, one.method) == key), key=lambda o: o.free_iterations or 0)
        ruled = next((o for o in groups if (o.setting, o.method) == key and o.free_iterations is None), None)
        source = source_of(points[0], groups)
        stream, model, protocol, _ = key[0]
        made[f"{key[1]} on {stream}, {model}, {protocol}: mIoU and NCut against iterations"] = _curve(
            ([source] if source else []) + points, ruled
        )
    return made


def verdict(groups: Sequence[Group]) -> list[str]:
    """For each curve, how far the stopping rule ends from the curve's best, in words."""
    lines = []
    free = [one for one in groups if one.free_iterations is not None]
    for key in dict.fromkeys((one.setting, one.method) for one in free):
        points = [one for one in free if (one.setting, one.method) == key]
        ruled = next((o for o in groups if (o.setting, o.method) == key and o.free_iterations is None), None)
        if ruled is None:
            continue
        source = source_of(points[0], groups)
        best = max([*points, *([source] if source else [])], key=lambda one: one.mean("mIoU"))
        gap = best.mean("mIoU") - ruled.mean("mIoU")
        steps = float(np.mean(ruled.per_image("iterations")))
        refused = sum(len(record["rolled_back"]) for record in ruled.records)
        images = sum(len(record["images"]) for record in ruled.records)
        lines.append(
            f"{key[1]} on {key[0][0]}: the rule stops after {steps:.1f} iterations on average at "
            f"{ruled.mean('mIoU'):.2f}, {gap:.2f} points {'below' if gap > 0 else 'above'} the best fixed number "
            f"({best.free_iterations or 0} iterations, {best.mean('mIoU'):.2f}). "
            f"The guard rolled {refused} of {images} images back to the unadapted prediction."
        )
    return lines


def reliability(groups: Sequence[Group]) -> dict[str, str]:
    """Title → SVG of accuracy against confidence, the methods of one setting together."""
    made = {}
    for setting in dict.fromkeys(one.setting for one in groups):
        inside = [one for one in groups if one.setting == setting and one.free_iterations is None]
        if inside:
            made[f"Reliability: {setting[0]}, {setting[1]}, {setting[2]}"] = _diagram(inside)
    return made


def _curve(points: Sequence[Group], ruled: Group | None) -> str:
    pyplot = _pyplot()
    figure, left = pyplot.subplots(figsize=(6.4, 3.4))
    right = left.twinx()
    steps = [one.free_iterations or 0 for one in points]
    left.plot(steps, [one.mean("mIoU") for one in points], "o-", color=BLUE, label="mIoU")
    right.plot(steps, [one.mean("ncut") for one in points], "s--", color=ORANGE, label="NCut")
    if ruled is not None:
        where = float(np.mean(ruled.per_image("iterations")))
        left.axvline(where, color=GREY, linestyle=":")
        left.plot([where], [ruled.mean("mIoU")], "*", color="black", markersize=13, label="early stopping")
    left.set_xlabel("iterations per batch")
    left.set_ylabel("mIoU in %", color=BLUE)
    right.set_ylabel("normalized cut", color=ORANGE)
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    left.legend(handles, [handle.get_label() for handle in handles], frameon=False)
    return _svg(figure)


def _diagram(inside: Sequence[Group]) -> str:
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(4.4, 4.2))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for index, one in enumerate(inside):
        rows = one.records[0]["reliability"]
        style = ("-", "--", "-.", ":")[index % 4]
        axes.plot(
            [row["confidence"] for row in rows], [row["accuracy"] for row in rows], style, marker=".", label=one.label
        )
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.tight_layout()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    _pyplot().close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise AllWeatherError("the page's figures need matplotlib: pip install 'allweather[report]'.") from error
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "allweather"  # the same records make the same page
    from matplotlib import pyplot

    return pyplot
