"""The tables of the gates that `benchmarks.gates` measured: each candidate in the mean over networks and streams."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.committed import benchmark_record, markdown_table
from benchmarks.gates import GATES

CLEAR, WORST = 0.3, -0.3  # points of pooled mIoU that a gate asks for in the mean, and allows to the worst cell
BOUND = "true regions"  # sees labels, so it is no candidate
Gate = Mapping[str, Any]


def table(gate: str) -> str:
    """One row per candidate of a gate, and which of them pass."""
    found = (benchmark_record("gates.json.gz") or {"gates": {}})["gates"].get(gate)
    if found is None:
        return "not measured"
    return drift(found) if gate == "drift" else compared(found)


def compared(found: Gate) -> str:
    """Against the prediction that every candidate starts from."""
    flicker = "flicker" in next(iter(found["rows"].values()))
    heads = [
        "candidate",
        "pooled mIoU, mean",
        "lowest cell",
        "per-frame mIoU",
        *(["flicker %, " + " / ".join(dict.fromkeys(key.split(" | ")[1] for key in found["rows"]))] if flicker else []),
    ]
    rows = [_cells(name, values) for name, values in _candidates(found)]
    if flicker:
        rows = [[*row, _flicker(found, number)] for number, row in enumerate(rows, 1)]
        rows.insert(0, ["none", "–", "–", "–", _flicker(found, 0)])
    return f"{markdown_table(heads, rows)}\n\n{_cells_of(found)} {verdict(found)}"


def verdict(found: Gate) -> str:
    """Which candidates help in the mean, and which of them clearly and nowhere less."""
    means = {name: values[:, :2].mean(0) for name, values in _candidates(found) if BOUND not in name}
    worst = {name: values[:, 0].min() for name, values in _candidates(found)}
    better = [name for name, mean in means.items() if mean.min() > 0]
    clear = [name for name in better if means[name][0] > CLEAR and worst[name] >= WORST]
    helped = f"both figures rise in the mean by {len(better)} of {len(means)} candidates"
    return (
        f"{helped.capitalize()}; by more than {CLEAR} pooled with no cell under {WORST}: {'; '.join(clear) or 'none'}."
    )


def drift(found: Gate) -> str:
    """Each round's pooled mIoU, and what the cut changes in the last."""
    heads = ["network", "", "round 1", "round 2", "round 3", "last round against weight 0: pooled", "per-frame mIoU"]
    rows = []
    for key, row in found["rows"].items():
        for name, rounds in row["rounds"].items():
            last = row["last"].get(name)
            changed = ["–", "–"] if last is None else [f"{last[0]:+.2f}", _interval(last[1], last[2])]
            rows.append([key.split(" | ")[0], name, *(f"{value:.2f}" for value in rounds), *changed])
    return f"{markdown_table(heads, rows)}\n\n{_cells_of(found)}"


def _candidates(found: Gate) -> Iterator[tuple[str, np.ndarray]]:
    """Each candidate with its cells × (pooled, per-frame mean, its standard error)."""
    for number, name in enumerate(found["candidates"]):
        cell = slice(3 * number, 3 * number + 3)
        yield name, np.array([row["values"][cell] for row in found["rows"].values()]) / 100


def _cells(name: str, values: np.ndarray) -> list[str]:
    error = float(np.sqrt((values[:, 2] ** 2).sum()) / len(values))  # of a mean over cells
    shown = [f"{values[:, 0].mean():+.2f}", f"{values[:, 0].min():+.2f}", _interval(values[:, 1].mean(), error)]
    return [name, *shown]


def _flicker(found: Gate, number: int) -> str:
    """Of the prediction that all start from, number 0, and of the candidates after it, stream by stream."""
    streams: dict[str, list[float]] = {}
    for key, row in found["rows"].items():
        streams.setdefault(key.split(" | ")[1], []).append(row["flicker"][number])
    return " / ".join(f"{np.mean(each):.1f}" for each in streams.values())


def _interval(mean: float, error: float) -> str:
    return f"{mean:+.2f} ± {error:.2f}"


def _cells_of(found: Gate) -> str:
    """What the cells are."""
    networks, streams = (
        {key.split(" | ")[part]: row["frames"] for key, row in found["rows"].items()} for part in (0, 1)
    )
    frames = ", ".join(f"{stream} {count}" for stream, count in streams.items())
    return f"{len(found['rows'])} cells: {', '.join(networks)}; frames: {frames}."


TABLES: dict[str, Callable[[], str]] = {f"gate-{gate.replace(' ', '-')}": partial(table, gate) for gate in GATES}
