"""Records without their lists of images: what tables need of those, worked out, in a few kilobytes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from allweather.runs.decisions import decisions_of
from allweather.scoring.intervals import Interval, bootstrap, counts_of, paired_difference

Record = Mapping[str, Any]
AVERAGED = ("iterations", "seconds", "ncut", "ncut_before")
LEFT_OUT = ("images", "reliability")
DIGITS = 6
LEVEL = 0.95


def summarize(record: Record, others: Iterable[Record]) -> dict[str, Any]:
    """The record with `summary` in place of its images and its reliability diagram.

    The summary holds `interval` (95 % over images of the mIoU over the classes in the truth, in [0, 1]), `means` over
    images, `stops` and `decisions` by part, and `paired`: of each of `others` on the same frames, by `key_of`, the
    difference of this record to it (value, low, high).

    Args:
        others: full records of the runs that tables compare with this one.
    """
    if is_summary(record):
        return dict(record)
    names = [image["name"] for image in record["images"]]
    interval = bootstrap(counts_of(record, names))
    rivals = [other for other in others if other is not record and comparable(other, record)]
    summary = {
        "images": len(names),
        "interval": [_short(interval.low), _short(interval.high)],
        "means": _means(record["images"]),
        "stops": dict(Counter(str(image.get("stop")) for image in record["images"])),
        "decisions": {part: decisions_of(record, part) for part in ("", *(f"{p}/" for p in record.get("parts", {})))},
        "paired": {key_of(other): _spelt(paired_images(other, record)) for other in rivals},
    }
    kept = {key: value for key, value in record.items() if key not in LEFT_OUT} | {"summary": summary}
    if "parts" in record:
        kept["parts"] = {part: _totals(figures) for part, figures in record["parts"].items()}
    return kept


def is_summary(record: Record) -> bool:
    """Whether the record's images have been worked out and left away."""
    return "summary" in record and "images" not in record


def key_of(record: Record) -> str:
    """How summaries call a run that they are compared with: the first half of its identity's sha256, or its label."""
    run = record["run"]
    named = f"{run['method']['name']} {run['method']['preset']} {run['order']} {run['seed']}"
    return record["identity"][:16] if "identity" in record else named


def comparable(first: Record, second: Record) -> bool:
    """Whether two full records hold the same images and classes."""
    if len(first["figures"]["IoU"]) != len(second["figures"]["IoU"]):
        return False
    return {image["name"] for image in first["images"]} == {image["name"] for image in second["images"]}


def paired_images(first: Record, second: Record) -> Interval:
    """The paired difference, second minus first in [0, 1], of two full records of the same images."""
    names: Sequence[str] = sorted(image["name"] for image in first["images"])
    return paired_difference(counts_of(first, names), counts_of(second, names))


def paired(first: Record, second: Record) -> Interval | None:
    """As `paired_images`; None where the records' images or classes differ, or a summary does not hold it."""
    if is_summary(first) or is_summary(second):
        known = second.get("summary", {}).get("paired", {}).get(key_of(first))
        if known is None:
            return None
        value, low, high = known
        return Interval(value, low, high, LEVEL)
    return paired_images(first, second) if first["images"] and comparable(first, second) else None


def interval_of(record: Record) -> tuple[float, float]:
    """The 95 % interval over images of the mIoU over the classes in the truth, in [0, 1]."""
    if is_summary(record):
        low, high = record["summary"]["interval"]
        return low, high
    found = bootstrap(counts_of(record, [image["name"] for image in record["images"]]))
    return found.low, found.high


def per_image(record: Record, key: str) -> list[float]:
    """A number of every image that has it; of a summary, as many times their mean."""
    if is_summary(record):
        means, images = record["summary"]["means"], record["summary"]["images"]
        return [means[key]] * images if key in means else []
    return [float(image[key]) for image in record["images"] if key in image]


def stops_of(record: Record) -> Counter[str]:
    """What ended the iterations, and of how many images."""
    if is_summary(record):
        return Counter(record["summary"]["stops"])
    return Counter(str(image.get("stop")) for image in record["images"])


def _totals(figures: Mapping[str, Any]) -> dict[str, Any]:
    """A piece's two means, over the classes true or predicted and over those in its truth."""
    return {name: value for name, value in figures.items() if name in ("mIoU", "mIoU_truth")}


def _means(images: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found = {key: [image[key] for image in images if key in image] for key in AVERAGED}
    return {key: _short(float(np.mean(values))) for key, values in found.items() if values}


def _spelt(interval: Interval) -> list[float]:
    return [_short(interval.value), _short(interval.low), _short(interval.high)]


def _short(value: float) -> float:
    return round(value, DIGITS)
