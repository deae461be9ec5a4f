"""Records without their lists of images: what tables need of those, worked out, in a few kilobytes."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from allweather.finite import or_none
from allweather.runs.decisions import STREAM_PASSES, decisions_of
from allweather.scoring.intervals import Interval, bootstrap, counts_of, paired_difference

Record = Mapping[str, Any]
AVERAGED = ("iterations", "seconds")
LEFT_OUT = ("images", "reliability", "rolled_back", "skipped_updates")  # those two: names of images, by version 0.1
DIGITS = 8  # with fewer, a figure that is rounded again for a table may end otherwise
KEY_LENGTH = 12  # hexadecimal digits: 48 bits tell thousands of runs apart
LEVEL = 0.95
UNMOVED = {"none", "no shift"}  # stops of images without an update


def summarize(record: Record, others: Iterable[Record], harm: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The record with `summary` in place of its images and its reliability diagram.

    The summary holds `interval` (95 % over images of the mIoU over the classes in the truth, in [0, 1]), `means` over
    images, `updates` where they are known, their `seconds`, `stops` and `decisions` by part, `reliability` (confidence
    and accuracy by bin, in [0, 1]), and `paired`: of each of `others` on the same frames, by `key_of`, the difference
    of this record to it (value, low, high).

    Args:
        others: full records of the runs that tables compare with this one.
        harm: where adaptation hurt, as `report.harm` spells it for the runs that this one is the first of.
    """
    if is_summary(record):
        return dict(record)
    names = [image["name"] for image in record["images"]]
    interval = bootstrap(counts_of(record, names))
    rivals = [other for other in others if other is not record and comparable(other, record)]
    summary = {
        "images": len(names),
        "interval": _short([interval.low, interval.high]),
        "means": _means(record["images"]),
        **({} if (updates := updates_of(record)) is None else {"updates": round(updates, DIGITS)}),
        "seconds": round(seconds_of_updates(record) or 0, DIGITS),
        "stops": dict(stops_of(record)),
        "decisions": {part: _met(record, part) for part in ("", *(f"{p}/" for p in record.get("parts", {})))},
        "reliability": dict(zip(("confidence", "accuracy"), reliability_of(record), strict=True)),
        "paired": {key_of(other): _spelt(paired_images(other, record)) for other in rivals},
    } | ({} if harm is None else {"harm": dict(harm)})
    kept = {key: value for key, value in record.items() if key not in LEFT_OUT} | {"summary": summary}
    if "parts" in record:
        kept["parts"] = {part: _totals(figures) for part, figures in record["parts"].items()}
    return kept


def is_summary(record: Record) -> bool:
    """Whether the record's images have been worked out and left away."""
    return "summary" in record and "images" not in record


def key_of(record: Record) -> str:
    """How summaries call a run that they are compared with: a digest of its settings, frames, result and time."""
    told = [record["run"], record.get("order_hash"), record.get("confusion"), record.get("finished")]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]


def same_truth(first: Record, second: Record) -> bool:
    """Whether two runs were scored with the same labels at one size, of whichever images of them.

    A stream's name says which labels only where no folder and no sequence does; otherwise it is the plan's own word.
    Paths that are spelt alike may be two: what records say of the frames and their files must not differ either.
    """
    ours, theirs = (record.get("run", {}) for record in (first, second))
    told = ["data_hash"]
    if ours.get("stream") == theirs.get("stream"):
        natural = all(run.get("order") == "natural" for run in (ours, theirs))
        told += ["frames"] + ["order_hash"] * natural
    sizes = [set(record.get("resolution", {}).get("scored", ())) for record in (first, second)]
    if all(sizes) and sizes[0].isdisjoint(sizes[1]):  # as of scenes at two sizes
        return False
    same = all(first[key] == second[key] for key in told if key in first and key in second)
    return same and _truth(ours) == _truth(theirs)


def _truth(run: Mapping[str, Any]) -> str:
    stream = run.get("stream", {})
    told = [
        run.get("scoring"),
        *(stream.get(key) for key in ("labels", "root", "classes", "sequence", "code", "labels_as")),
    ]
    own = stream.get("labels") is not None or stream.get("sequence")
    return json.dumps([*told, None if own else stream.get("name")])


def comparable(first: Record, second: Record) -> bool:
    """Whether two full records hold the same images, labels and classes."""
    if len(first["figures"]["IoU"]) != len(second["figures"]["IoU"]) or not same_truth(first, second):
        return False
    return {image["name"] for image in first["images"]} == {image["name"] for image in second["images"]}


def paired_images(first: Record, second: Record) -> Interval:
    """The paired difference, second minus first in [0, 1], of two full records of the same images."""
    names = shared_names(first, second)
    return paired_difference(counts_of(first, names), counts_of(second, names))


def shared_names(first: Record, second: Record) -> list[str]:
    """The images that two full records hold, sorted, for resamples take them by place."""
    return sorted({image["name"] for image in first["images"]} & {image["name"] for image in second["images"]})


def paired(first: Record, second: Record) -> Interval | None:
    """As `paired_images`; None where the records' images, labels or classes differ, or neither summary holds it."""
    if is_summary(first) or is_summary(second):
        return _kept(first, second) if same_truth(first, second) else None
    return paired_images(first, second) if first["images"] and comparable(first, second) else None


def _kept(first: Record, second: Record) -> Interval | None:
    """The difference as one of two records, of which one is a summary at least, holds it."""
    forward, backward = (
        holder.get("summary", {}).get("paired", {}).get(key_of(other))
        for holder, other in ((second, first), (first, second))
    )
    if forward is not None:
        value, low, high = _known(forward)
    elif backward is not None:
        value, high, low = (-number for number in _known(backward))
    else:
        return None
    return Interval(value, low, high, LEVEL)


def interval_of(record: Record) -> tuple[float, float]:
    """The 95 % interval over images of the mIoU over the classes in the truth, in [0, 1]."""
    if is_summary(record):
        low, high = _known(record["summary"]["interval"])
        return low, high
    found = bootstrap(counts_of(record, [image["name"] for image in record["images"]]))
    return found.low, found.high


def per_image(record: Record, key: str) -> list[float]:
    """A number of every image that has it; of a summary, as many times their mean."""
    if is_summary(record):
        means, images = record["summary"]["means"], record["summary"]["images"]
        return [means[key]] * images if key in means else []
    return [float(image[key]) for image in record["images"] if key in image]


def updates_of(record: Record) -> float | None:
    """How many updates were made, those of a batch once; None where the record does not tell how full batches were.

    Every image of a batch counts what its batch did. Batches are full but for the last one where the frames have one
    size and none is missing; of an older summary, all must be equally full.
    """
    if (kept := record.get("summary", {}).get("updates")) is not None:
        return float(kept)
    run, frames, images = record["run"], int(record["frames"]), image_count(record)
    batch, made = min(int(run["batch"]), frames), per_image(record, "iterations")
    if batch == 1:
        return sum(made)
    sizes = record.get("resolution", {}).get("input", ())
    told = len(sizes) == 1 and len(made) == images == frames and (not is_summary(record) or frames % batch == 0)
    if not told:
        return None
    return sum(number / min(batch, frames - index // batch * batch) for index, number in enumerate(made))


def seconds_of_updates(record: Record) -> float | None:
    """Seconds of all images, or of passes over them, with an update; None where an older summary does not tell them."""
    if is_summary(record):
        mixed = STREAM_PASSES in record or record["summary"]["stops"].keys() & UNMOVED
        return record["summary"].get("seconds", None if mixed else sum(per_image(record, "seconds")))
    lines = (line for image in record["images"] for line in image.get(STREAM_PASSES, (image,)))
    return float(sum(line.get("seconds", 0) for line in lines if line.get("iterations")))


def stops_of(record: Record) -> Counter[str]:
    """What ended the iterations, and of how many images."""
    if is_summary(record):
        return Counter(record["summary"]["stops"])
    return Counter(str(image.get("stop")) for image in record["images"])


def reliability_of(record: Record) -> tuple[list[float], list[float]]:
    """Mean confidence and accuracy, in [0, 1], of each bin of confidence that holds pixels."""
    if is_summary(record):
        kept = record["summary"]["reliability"]
        return list(kept["confidence"]), list(kept["accuracy"])
    rows = record["reliability"]
    return [row["confidence"] for row in rows], [row["accuracy"] for row in rows]


def image_count(record: Record) -> int:
    """How many images were scored, at least one."""
    return int(record["summary"]["images"]) if is_summary(record) else len(record["images"])


def _met(record: Record, part: str) -> dict[str, int]:
    """The kinds of decision that occur, with their numbers."""
    return {kind: number for kind, number in decisions_of(record, part).items() if number}


def _totals(figures: Mapping[str, Any]) -> dict[str, Any]:
    """A piece's two means, over the classes true or predicted and over those in its truth."""
    return {name: value for name, value in figures.items() if name in ("mIoU", "mIoU_truth")}


def _means(images: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found = {key: [image[key] for image in images if key in image] for key in AVERAGED}
    return {key: round(float(np.mean(values)), DIGITS) for key, values in found.items() if values}


def _spelt(interval: Interval) -> list[float | None]:
    return _short([interval.value, interval.low, interval.high])


def _short(values: Iterable[float]) -> list[float | None]:
    return or_none(round(value, DIGITS) for value in values)


def _known(values: Iterable[float | None]) -> list[float]:
    """Numbers with NaN for those that are none."""
    return [np.nan if value is None else value for value in values]
