"""Where adaptation hurt: how many images lost against the source, by how much, and which; also out of summaries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from allweather.report.collect import Group, changes
from allweather.runs.summary import key_of

EXTREMES = 3  # images named at either end
DIGITS = 6  # with fewer, a figure that is rounded again for a table may end otherwise
Change = tuple[str, float]  # an image and its change in points of mIoU


@dataclass(frozen=True)
class Harm:
    """What became of the images of some runs, each over the classes in its truth, mean over the runs.

    Attributes:
        images: that were compared; `lost` of them have a lower mIoU than the source gives.
        mean: change of those that lost, in points; None without any.
        hurt: images that lost most, the most first; `helped` those that won most; at most `EXTREMES` of each.
    """

    images: int
    lost: int
    mean: float | None
    hurt: tuple[Change, ...]
    helped: tuple[Change, ...]


def harm_of(group: Group, source: Group) -> Harm | None:
    """What the records say, or the summary of the first of them; None where neither does, or no image is shared."""
    kept = group.records[0].get("summary", {}).get("harm")
    if kept is not None and (kept["source"], kept["runs"]) == (key_of(source.records[0]), _keys(group)):
        ends = (tuple(kept[side].items()) for side in ("hurt", "helped"))
        return Harm(kept["images"], kept["lost"], kept["mean"], *ends)
    found = changes(group, source)
    if not found:
        return None
    lost = [change for _, change in found if change < 0]
    helped, hurt = extremes(found, EXTREMES)
    return Harm(len(found), len(lost), float(np.mean(lost)) if lost else None, tuple(hurt), tuple(helped))


def spell_harm(group: Group, source: Group) -> Mapping[str, Any] | None:
    """The same ready for JSON, with the runs that it is of; None where the records do not say."""
    found = harm_of(group, source)
    if found is None:
        return None
    ends = {
        side: {name: round(change, DIGITS) for name, change in images}
        for side, images in (("hurt", found.hurt), ("helped", found.helped))
    }
    mean = None if found.mean is None else round(found.mean, DIGITS)
    who = {"source": key_of(source.records[0]), "runs": _keys(group)}
    return {**who, "images": found.images, "lost": found.lost, "mean": mean, **ends}


def extremes(ranked: Sequence[Change], count: int) -> tuple[list[Change], list[Change]]:
    """The images that won most, the most first, and those that lost most, of changes with the worst first."""
    helped = [entry for entry in reversed(ranked) if entry[1] > 0]
    hurt = [entry for entry in ranked if entry[1] < 0]
    return helped[:count], hurt[:count]


def _keys(group: Group) -> list[str]:
    return [key_of(record) for record in group.records]
