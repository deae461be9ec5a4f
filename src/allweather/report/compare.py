"""Two records side by side: what was different about the runs, and what came of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from allweather.finite import or_none
from allweather.report.derived import not_in_truth, with_derived_figures
from allweather.runs.decisions import STREAM_PASSES, decisions_of
from allweather.runs.summary import Record, image_count, is_summary, paired, same_truth, shared_names
from allweather.scoring.intervals import Interval, counts_of, paired_difference

UNCOMPARED = (  # results, or too long to show
    "images", "summary", "confusion", "reliability", "figures", "parts", "identity", "finished",
    "seconds", "peak_memory_mib", "decisions", STREAM_PASSES, "rolled_back", "skipped_updates",
)  # fmt: skip


def compare(first: Record, second: Record) -> dict[str, Any]:
    """What differs between two records, ready for JSON; figures of the confusion matrix are computed anew.

    Returns:
        `settings` (dotted key → both values), `figures` (name → both values and second minus first), and `paired`:
        the mIoU difference in points over the images that both hold, with its interval (ends of None where the images
        are one frame), and the `classes` in their truth, which both means are over; None without such images, where the
        labels of their streams or their scoring are others, and for summaries that do not hold it.
    """
    first, second = with_derived_figures(first), with_derived_figures(second)
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


def _paired(first: Record, second: Record) -> dict[str, Any] | None:
    found = _kept(first, second) if is_summary(first) or is_summary(second) else _computed(first, second)
    if found is None:
        return None
    interval, images, classes = found
    low, value, high = or_none(round(100 * figure, 2) for figure in (interval.low, interval.value, interval.high))
    return {"mIoU": value, "interval": [low, high], "level": interval.level, "images": images, "classes": classes}


def _computed(first: Record, second: Record) -> tuple[Interval, int, list[str]] | None:
    """The difference over the images that both hold, their number, and the classes in their truth."""
    names = shared_names(first, second)
    if not names or len(first["figures"]["IoU"]) != len(second["figures"]["IoU"]) or not same_truth(first, second):
        return None
    ours, theirs = (counts_of(record, names) for record in (first, second))
    every = np.ones((1, len(names)))
    counted = (ours.classes(every) & theirs.classes(every))[0].tolist()
    classes = [name for name, there in zip(first["figures"]["IoU"], counted, strict=True) if there]
    return paired_difference(ours, theirs), len(names), classes


def _kept(first: Record, second: Record) -> tuple[Interval, int, list[str]] | None:
    """The same as a summary holds it, which is for records of the same images alone."""
    interval = paired(first, second)
    if interval is None:
        return None
    absent = {*not_in_truth(first), *not_in_truth(second)}
    return interval, image_count(first), [name for name in first["figures"]["IoU"] if name not in absent]
