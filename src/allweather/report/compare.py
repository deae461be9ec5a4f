"""Two records side by side: what was different about the runs, and what came of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from allweather.runs.decisions import decisions_of
from allweather.scoring.intervals import counts_of, paired_difference

UNCOMPARED = (  # results, or too long to show
    "images", "summary", "confusion", "reliability", "figures", "parts", "identity", "finished",
    "seconds", "peak_memory_mib", "decisions", "rolled_back", "skipped_updates",
)  # fmt: skip


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """What differs between two records, ready for JSON.

    Returns:
        `settings` (dotted key → both values), `figures` (name → both values and second minus first), and `paired`:
        the mIoU difference in points over the images that both hold, with its interval, and the `classes` in their
        truth, which both means are over; None without such images.
    """
    ours, theirs = (flatten({k: v for k, v in record.items() if k not in UNCOMPARED}) for record in (first, second))
    figures = [flatten(record["figures"] | {"decisions": decisions_of(record)}) for record in (first, second)]
    return {
        "settings": {
            key: [ours.get(key), theirs.get(key)]
            for key in sorted({*ours, *theirs})
            if ours.get(key) != theirs.get(key)
        },
        "figures": {
            key: [figures[0].get(key), figures[1].get(key), _difference(figures[0].get(key), figures[1].get(key))]
            for key in {**figures[0], **figures[1]}
            if figures[0].get(key) != figures[1].get(key)
        },
        "paired": _paired(first, second),
    }


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    made: dict[str, Any] = {}
    for key, value in content.items():
        made |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return made


def _difference(first: Any, second: Any) -> float | None:
    numbers = all(isinstance(value, int | float) for value in (first, second))
    return round(second - first, 5) if numbers else None


def _paired(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any] | None:
    entries = [{entry["name"]: entry for entry in record.get("images", ())} for record in (first, second)]
    names = [name for name in entries[0] if name in entries[1]]
    if not names or len({len(side[names[0]]["union"]) for side in entries}) > 1:
        return None
    ours, theirs = (counts_of(record, names) for record in (first, second))
    interval = paired_difference(ours, theirs)
    low, value, high = (round(100 * figure, 2) for figure in (interval.low, interval.value, interval.high))
    every = np.ones((1, len(names)))
    counted = (ours.classes(every) & theirs.classes(every))[0].tolist()
    return {
        "mIoU": value, "interval": [low, high], "level": interval.level, "images": len(names),
        "classes": [name for name, there in zip(first["figures"]["IoU"], counted, strict=True) if there],
    }  # fmt: skip
