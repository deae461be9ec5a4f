"""What became of the updates of a run: each image's decision in a record, and how many there are of each kind."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from allweather.errors import InputError
from allweather.session import Decision
from allweather.session.guard import KINDS, Kind

STREAM_PASSES = "stream_passes"  # of the transductive protocol; a record's `passes` are those of one prediction
Counts = Mapping[Kind, float]  # every kind, 0 included; means over runs need not be whole


def describe(decision: Decision) -> dict[str, str]:
    """A decision as a record's image holds it: `decision`, its kind, and `reason` where there is one."""
    return {"decision": decision.kind} | ({"reason": decision.reason} if decision.reason else {})


def decision_of(image: Mapping[str, Any]) -> Decision | None:
    """What a record says of one image, or of one pass; None where it was predicted without a decision.

    Records of version 0.1 hold kind and reason as one text ("rolled back: …", "skipped: resting after a reset").

    Raises:
        InputError: for a decision of no known kind.
    """
    if "decision" not in image:
        return None
    try:
        return Decision.read(": ".join(filter(None, (image["decision"], image.get("reason")))))
    except ValueError as error:
        raise InputError(f"image {image.get('name', '')}: {error}") from error


def decisions_in(image: Mapping[str, Any]) -> list[Decision]:
    """All that a record says of one image: one decision, and under the transductive protocol one of every pass.

    None of records from before passes were kept.

    Raises:
        InputError: for a decision of no known kind.
    """
    name = image.get("name", "")
    lines = (image, *({"name": name, **line} for line in image.get(STREAM_PASSES, ())))
    return [decision for line in lines if (decision := decision_of(line)) is not None]


def count(decisions: Iterable[Decision]) -> dict[Kind, int]:
    """How many decisions there are of each kind, 0 included, ready for JSON."""
    found = Counter(decision.kind for decision in decisions)
    return {kind: found[kind] for kind in KINDS}


def decisions_of(record: Mapping[str, Any], part: str = "") -> dict[Kind, int]:
    """How many images of a record met each kind of decision, whichever version wrote it; once for every pass.

    Args:
        part: counts only images whose name begins so, as those of one piece of a sequence do.

    Raises:
        InputError: for a decision of no known kind.
    """
    if "images" not in record:
        return _summed(record["summary"]["decisions"], part)
    images = record["images"]
    entries = images.items() if isinstance(images, Mapping) else ((image["name"], image) for image in images)
    return count(decision for name, image in entries if name.startswith(part) for decision in decisions_in(image))


def _summed(by_part: Mapping[str, Mapping[str, int]], part: str) -> dict[Kind, int]:
    """The numbers of a summary: of all images, or of the pieces whose name begins so."""
    names = [name for name in by_part if name and name.startswith(part)] if part else [""]
    return {kind: sum(by_part.get(name, {}).get(kind, 0) for name in names) for kind in KINDS}


def refused(counts: Counts) -> float:
    """How many images the guard kept from what the method would have done: shrunk, rolled back, reset or resting."""
    return sum(number for kind, number in counts.items() if Decision(kind).refused)


def spell(counts: Counts) -> str:
    """The kinds that occur, in words: "92 shrunk, 3 rolled back"; nothing where every update was accepted."""
    return ", ".join(
        f"{number} {kind.replace('-', ' ')}" for kind, number in counts.items() if number and kind != "accepted"
    )
