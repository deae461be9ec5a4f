"""Reading records: JSON of the shape that `bench` and `adapt` write, or one line that says where it is another."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from allweather.classes import CLASS_SETS
from allweather.data.json_lines import read_json_lines
from allweather.errors import AllWeatherError, InputError
from allweather.runs.decisions import STREAM_PASSES, decisions_of
from allweather.runs.shape import NUMBER, OR_NONE, SCALAR, Count, Each, Maybe, check
from allweather.runs.summary import is_summary
from allweather.values import check_depth

HEADER, LINES = "record.json", "record.jsonl"  # of `adapt`, beside the folders of its results; a line for each image

BEGINNING = 200  # bytes that tell whose file it is
SETTING = (*SCALAR, list, dict)
NUMBER_OR_NONE = (*NUMBER, *OR_NONE)  # as the ends of an interval, which a single frame has not
TEXT = (str, *OR_NONE)
ONE_PASS = {
    "decision": str, "reason": Maybe(str), "iterations": Count, "seconds": NUMBER, "stop": Maybe(str),
    "watched": Maybe([NUMBER_OR_NONE]),
}  # fmt: skip
ALL_PASSES = {"watched": NUMBER_OR_NONE, "iterations": Count, "decisions": Each(Count), "seconds": NUMBER}
IMAGE = {
    "decision": Maybe(str), "reason": Maybe(str), "iterations": Maybe(Count), "seconds": Maybe(NUMBER),
    "stop": Maybe(str), STREAM_PASSES: Maybe([ONE_PASS]),
}  # fmt: skip
SCORED = {
    **IMAGE, "name": str, "mIoU": NUMBER_OR_NONE, "intersection": [Count], "union": [Count],
    "ncut": Maybe(NUMBER), "only_predicted": Maybe([Count]),
}  # fmt: skip
FIGURES = {
    "mIoU": NUMBER, "IoU": Each(NUMBER_OR_NONE), "interval": [NUMBER_OR_NONE], "calibration_error": Maybe(NUMBER),
    "mUIoU": Maybe(NUMBER_OR_NONE), "ncut": Maybe(NUMBER), "ncut_before": Maybe(NUMBER_OR_NONE),
    "images": Maybe(Count), "mIoU_truth": Maybe(NUMBER_OR_NONE), "not_in_truth": Maybe([str]),
}  # fmt: skip
HARM = {
    "source": str, "runs": [str], "images": Count, "lost": Count, "mean": NUMBER_OR_NONE, "hurt": Each(NUMBER),
    "helped": Each(NUMBER),
}  # fmt: skip
SUMMARY = {
    "images": Count, "interval": [NUMBER_OR_NONE], "means": Each(NUMBER), "stops": Each(Count),
    "updates": Maybe(NUMBER), "decisions": Each(Each(Count)), "paired": Each([NUMBER_OR_NONE]),
    "reliability": {"confidence": [NUMBER], "accuracy": [NUMBER]}, "harm": Maybe(HARM), "seconds": Maybe(NUMBER),
}  # fmt: skip
RUN = {
    "model": {
        "name": str, "size": Maybe(TEXT), "weights": Maybe(TEXT), "arguments": Maybe(Each(SETTING)),
        "classes": Maybe(TEXT), "mean": Maybe([NUMBER]), "std": Maybe([NUMBER]), "code": Maybe(str),
    },
    "stream": {
        "name": str, "root": Maybe(TEXT), "images": Maybe(TEXT), "labels": Maybe(TEXT), "classes": Maybe(str),
        "every": Maybe(Count), "sequence": Maybe([str]), "rounds": Maybe(Count), "code": Maybe(str),
        "labels_as": Maybe(TEXT),
    },
    "method": {
        "name": str, "preset": str, "fields": Each(SETTING), "adapt_when": Maybe(str),
        "guard": Maybe(Each(SETTING)), "code": Maybe(str),
    },
    "protocol": str, "scoring": str, "order": str, "seed": int, "batch": Count, "device": Maybe(str),
    "precision": Maybe(str),
}  # fmt: skip
RECORD = {
    "identity": Maybe(str), "run": RUN, "figures": FIGURES, "images": Maybe([SCORED]),
    "summary": Maybe(SUMMARY), "failures": Each(str),
    "model": {"name": str, "weights": TEXT, "sha256": TEXT},
    "session": Maybe({"method": Each(SETTING), "guard": Each(SETTING)}),
    "parts": Maybe(Each({"mIoU": NUMBER_OR_NONE, "mIoU_truth": Maybe(NUMBER_OR_NONE), "first": Maybe(str)})),
    "confusion": Maybe([[Count]]),
    "reliability": Maybe([{"confidence": NUMBER, "accuracy": NUMBER}]),
    "resolution": Maybe({"stored": [str], "input": [str], "scored": [str]}),
    "versions": {"machine": str}, "frames": Count, "order_hash": str, "prediction": str, "views": Maybe(Count),
    "passes": Maybe(NUMBER), "data_hash": Maybe(str),
    STREAM_PASSES: Maybe([ALL_PASSES]),
    "seconds": Maybe(NUMBER), "peak_memory_mib": Maybe(NUMBER_OR_NONE), "finished": Maybe(str),
}  # fmt: skip
COMPATIBLE = {"format", "versions"}  # what may differ between the runs that fill one folder
DIFFERENCES, LONGEST = 4, 60  # told of two runs: settings, and characters of a value
OUTCOME = {"totals", "images", "failures"}  # what became of a run, no part of what made it
YOUNGER = {"size", "film"}  # what the first headers did not say: compared where both do
ADAPTED = {"images": Each(IMAGE), "failures": Maybe(Each(str))}
LINE = {**IMAGE, "name": str, "failure": Maybe(str)}


def read_record(path: Path) -> dict[str, Any]:
    """The record of a run, by whichever version of `allweather bench` it was written.

    Raises:
        InputError: when the file is none, or a part of it is missing or of another kind.
    """
    return checked_record(read_json(path), path)


def checked_record(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """The record, found to be one.

    Args:
        path: where it comes from, for the error.

    Raises:
        InputError: when a part of it is missing or of another kind.
    """
    try:
        check(record, RECORD)
        _check_views(record)
        _check_confusion(record)
        _check_summary(record) if is_summary(record) else _check_images(record)
        _check_parts(record)
        decisions_of(record)
    except InputError as error:
        raise InputError(f"{path} is not a record that `allweather bench` wrote: {error}") from error
    return record


def read_adapted(path: Path) -> dict[str, Any]:
    """The record of an output folder of `allweather adapt`: the header with `images` and `failures` by name.

    They are the lines of the .jsonl file beside it, of which an image's last one counts; version 0.1 wrote them into
    the header itself.

    Raises:
        InputError: when the file is none, or a part of it is missing or of another kind.
    """
    record, lines = {"images": {}, **read_json(path)}, read_json_lines(path.with_suffix(".jsonl"))
    try:
        check({"lines": lines}, {"lines": [LINE]})
        check(record, ADAPTED)
        _add_lines(record, lines)
        decisions_of(record)
    except InputError as error:
        raise InputError(f"{path} is not a record that `allweather adapt` wrote: {error}") from error
    return record


def holds_run(header: Path, resume: bool) -> bool:
    """Whether the folder of this header holds a run already, to go on with; one without any image yet is none.

    Raises:
        AllWeatherError: when it does, and nobody said `resume`.
    """
    there = header.exists() and not _without_lines(header)
    if there and not resume:
        raise AllWeatherError(
            f"{header.parent} already holds a run. Add --resume to finish it, or choose another --out."
        )
    return there


def _without_lines(header: Path) -> bool:
    """Whether there are files for lines beside the header, those of ranks too, and nothing in them."""
    files = list(header.parent.glob(f"{header.stem}*{Path(LINES).suffix}"))
    return bool(files) and not any(file.stat().st_size for file in files)


def check_same_run(header: Path, head: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    """Refuses to fill a folder with the frames of two runs.

    Raises:
        AllWeatherError: naming what is another in the earlier run's header.
    """
    keys = (head.keys() | earlier.keys()) - COMPATIBLE - OUTCOME - (YOUNGER - (head.keys() & earlier.keys()))
    different = [each for key in sorted(keys) for each in _differences(key, earlier.get(key), head.get(key))]
    if different:
        more = f", and {len(different) - DIFFERENCES} more" * (len(different) > DIFFERENCES)
        raise AllWeatherError(
            f"{header} is of another run: {'; '.join(different[:DIFFERENCES])}{more}. Repeat its settings and images, "
            "or choose another --out."
        )


def _differences(name: str, there: Any, here: Any) -> list[str]:
    """What differs, setting by setting; the first headers said nothing of a method's files, and code by its file."""
    if there == here or (there is None and name.startswith("session.files")):
        return []
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        if name == "code" and all(key.endswith(".py") for key in there) and _digests(there) == _digests(here):
            return []
        keys = sorted(there.keys() | here.keys())
        return [each for key in keys for each in _differences(f"{name}.{key}", there.get(key), here.get(key))]
    was, now = (f"{str(value)[:LONGEST]}…" if len(str(value)) > LONGEST else str(value) for value in (there, here))
    return [f"{name} was {was} and is {now}"]


def _digests(code: Mapping[str, Any]) -> set[str]:
    return set(map(str, code.values()))


def _add_lines(record: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    record["failures"] = record.get("failures", {})
    for line in lines:
        name = line.pop("name")
        for kind in ("images", "failures"):
            record[kind].pop(name, None)
        if "failure" in line:
            record["failures"][name] = line["failure"]
        else:
            record["images"][name] = line


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object, its numbers finite.

    Raises:
        InputError: when it cannot be read, or holds anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        check_depth(content)
        check(content, dict)
    except (OSError, ValueError, RecursionError, InputError) as error:
        raise InputError(f"{path} is not a readable record ({error}).") from error
    return content


def written_classes(labels: Path, read: Callable[[Path], Any] = read_record) -> tuple[str, list[str], Path] | None:
    """The name and the classes of the set that a folder of predicted labels holds, and the record that says so.

    None where no `adapt` or `bench` wrote it, or its record names no set that is known or spelt.

    Raises:
        InputError: for a damaged record, and for any record.json beside the folder or in it that cannot be read.
    """
    labels, real = labels.absolute(), labels.resolve()
    for folder in (labels, *labels.parents):
        kept, header = folder.parent / f"{folder.name}.json", folder / HEADER
        try:  # of `bench`, which keeps predictions in the truth's classes
            names = list(read(kept)["figures"]["IoU"])
            return next((name for name, known in CLASS_SETS.items() if names == [*known.names]), "truth"), names, kept
        except InputError:
            if _begins(kept, rb'\{\s*"identity": "[0-9a-f]{64}"'):  # not others'
                raise
        inner = labels.relative_to(folder).parts
        if not (len(inner) < 2 or inner[0] in ("labels", "color")) or not header.is_file():
            continue
        try:
            model = read_json(header).get("model")
            if isinstance(model, dict) and isinstance(model.get("classes"), str):
                check(model, {"class_names": Maybe([str])}, "model")
                known = CLASS_SETS.get(model["classes"])
                names = model.get("class_names", [] if known is None else list(known.names))
                return (model["classes"], names, header) if names else None
        except InputError as error:
            if len(inner) < 2 or _begins(header, rb'\{\s*"format": \d'):
                raise InputError(f"{header} does not say what {labels} holds: {error}") from error
    return None if real == labels else written_classes(real, read)


def _begins(path: Path, how: bytes) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return re.match(how, file.read(BEGINNING)) is not None
    return False


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _check_views(record: dict[str, Any]) -> None:
    """A list of views names them; other methods have a number of that name."""
    views = record.get("session", {"method": {}})["method"].get("views")
    if isinstance(views, list):
        check(views, [str], "session.method.views")


def _check_confusion(record: dict[str, Any]) -> None:
    """The confusion matrix is of the classes that the figures name."""
    classes = len(record["figures"]["IoU"])
    _check_length(record["figures"]["interval"], 2, "figures.interval")
    rows = [len(row) for row in record.get("confusion", [])]
    if "confusion" in record and rows != [classes + 1] * classes:
        raise InputError(f"confusion: expected {classes} rows of {classes + 1} numbers.")


def _check_images(record: dict[str, Any]) -> None:
    """Counts of every image are of the classes that the figures name."""
    check(record, {"reliability": list})
    classes, images = len(record["figures"]["IoU"]), record.get("images", [])
    if not images:
        raise InputError("images: expected at least one, got none.")
    for name, times in Counter(image["name"] for image in images).items():
        if times > 1:
            raise InputError(f"images: expected each name once, got {name!r} {times} times.")
    for index, image in enumerate(images):
        for key in ("intersection", "union"):
            _check_length(image[key], classes, f"images.{index}.{key}")
        for right, all_of_it in zip(image["intersection"], image["union"], strict=True):
            if right > all_of_it:
                raise InputError(f"images.{index}: {right} pixels are in an intersection whose union has {all_of_it}.")
        if not all(0 <= number < classes for number in image.get("only_predicted", [])):
            raise InputError(f"images.{index}.only_predicted: expected numbers of classes, 0 to {classes - 1}.")


def _check_summary(record: dict[str, Any]) -> None:
    """What stands in place of the images is whole."""
    summary = record["summary"]
    if summary["images"] < 1:
        raise InputError("summary.images: expected at least one.")
    _check_length(summary["interval"], 2, "summary.interval")
    for name, numbers in summary["paired"].items():
        _check_length(numbers, 3, f"summary.paired.{name}")
    bins = summary["reliability"]
    _check_length(bins["accuracy"], len(bins["confidence"]), "summary.reliability.accuracy")


def _check_length(numbers: list[Any], length: int, where: str) -> None:
    if len(numbers) != length:
        raise InputError(f"{where}: expected {length} numbers, got {len(numbers)}.")


def _check_parts(record: dict[str, Any]) -> None:
    for part in record.get("parts", {}):
        if not re.match(r"\d+/", part):
            raise InputError(f"parts.{part}: expected a name like 01/fog.")
