"""Panels of single frames: input, source, adapted, truth, and where adaptation changed the prediction for the better.

They show frames of the streams, so a page with panels is as free to pass on as the frames are.
"""

import base64
import html
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from allweather.data.class_files import is_file
from allweather.data.images import read_labels
from allweather.data.labelled import LabelledStream
from allweather.errors import InputError
from allweather.pictures.convert import pixels_of
from allweather.pictures.drawing import colorize
from allweather.report.collect import Group, changes, source_of
from allweather.report.harm import extremes
from allweather.runs.execute import labels_folder
from allweather.runs.plan import PlannedRun
from allweather.runs.stale import other_data
from allweather.runs.streams import open_stream, runs_code
from allweather.runs.summary import Record

LOG = logging.getLogger(__name__)
RIGHTED, SPOILT, SAME = (31, 95, 168), (200, 100, 30), (235, 235, 235)  # blue, orange, light grey
COLUMNS = ("input", "source", "adapted", "truth", "change")
WIDTH = 360  # pixels of a picture in the page


def panels(groups: Sequence[Group], folder: Path, count: int) -> dict[str, str]:
    """Title → HTML of the frames that adaptation helped and hurt most, `count` each, where predictions were kept.

    Of a stream that only code of the user's own could open there is a line instead: a report runs nothing that records
    name.

    Raises:
        AllWeatherError: when no run kept its predictions, or a stream can no longer be opened.
    """
    made: dict[str, str] = {}
    for group in groups:
        source = source_of(group, groups)
        if source is None or group.is_source or not group.on_its_own:
            continue
        before, after = _labels(folder, source.records[0]), _labels(folder, group.records[0])
        if before is None or after is None:
            continue
        run = _run(group.records[0])
        if runs_code(run.stream):
            made[group.where] = made.get(group.where) or _unseen(run.stream.name)
            continue
        opened = _opened(run, group.records[0])
        kept = {image["name"] for image in group.records[0].get("images", ())}
        ranked = [pair for pair in changes(group, source) if pair[0] in kept]
        helped, hurt = extremes(ranked, count)
        for name, change in [*helped, *hurt]:
            points = f"{change:+.1f} points of mIoU{', mean over runs' if group.first else ''}"
            title = f"{group.label} on {group.place}, {name}{group.first}: {points}"
            made[title] = f"<h3>{html.escape(title)}</h3><div class='frames'>{_row(opened, name, before, after)}</div>"
        if ranked:
            made.pop(group.where, None)  # once for a stream, below its last frames
            made[group.where] = _key(opened)
    if not made:
        raise InputError(
            f"no run in {folder} kept its predictions. Run the plan with --labels, the source among its methods."
        )
    return made


def _opened(run: PlannedRun, record: Record) -> LabelledStream:
    """The frames of a run; a record does not say in which folder its plan was."""
    try:
        opened = open_stream(run)
    except InputError as error:
        named = run.stream
        classes = named.classes if is_file(named.classes) else None
        paths = [path for path in (named.root, named.images, named.labels, classes) if path]
        if all(path.startswith(("/", "~", "${")) for path in paths):
            raise
        raise InputError(
            f"{error} A record names {', '.join(paths)} as its plan does: start the report in the plan's folder."
        ) from error
    if {"frames", "data_hash"} & set(other_data(record, opened, opened.data_hash())):
        raise InputError(
            f"the files of stream '{run.stream.name}' are others than those of the record: start the report in the "
            "plan's folder, or make the record again."
        )
    return opened


def _unseen(stream: str) -> str:
    """A line in place of a stream's frames."""
    said = f"{stream}: no frames are shown; its dataset is none of this package, and a report runs no code of records."
    LOG.warning("%s", said)
    return f"<p class='note'>{html.escape(said)}</p>"


def _key(opened: LabelledStream) -> str:
    """What the colors mean."""
    swatches = zip(opened.classes.names, opened.classes.colors, strict=True)
    changes = (("put right by adaptation", RIGHTED), ("spoilt", SPOILT), ("as before", SAME))
    shown = [*swatches, *((f"change: {name}", color) for name, color in changes)]
    return "<div class='key'>" + "".join(
        f"<span><i style='background:rgb({red},{green},{blue})'></i>{html.escape(name)}</span>"
        for name, (red, green, blue) in shown
    ) + "</div>"  # fmt: skip


def _labels(folder: Path, record: Record) -> Path | None:
    found = labels_folder(folder / _run(record).file)
    return found if found.is_dir() else None


def _run(record: Record) -> PlannedRun:
    try:
        return PlannedRun.from_json(record["run"])
    except (KeyError, TypeError) as error:
        raise InputError(f"a record's run cannot be repeated, so its frames cannot be shown ({error!r}).") from error


def _row(opened: LabelledStream, name: str, before: Path, after: Path) -> str:
    if name not in opened.stream.names:
        raise InputError(f"the record names an image '{name}' that its stream has no more.")
    truth = opened.truth(name).labels
    source, adapted = (read_labels(kept / f"{name}.png") for kept in (before, after))
    frame = opened.stream.read(name)
    shown = {
        "input": pixels_of(frame.image),
        "source": colorize(source, opened.classes),
        "adapted": colorize(adapted, opened.classes),
        "truth": colorize(truth, opened.classes),
        "change": _change(source, adapted, truth),
    }
    return "".join(f"<figure>{_image(shown[column], column)}<figcaption>{column}</figcaption></figure>"
                   for column in COLUMNS)  # fmt: skip


def _change(source: np.ndarray, adapted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """H×W×3: pixels that adaptation put right or spoilt; the others, and those without truth, are grey."""
    picture = np.full((*truth.shape, 3), SAME, np.uint8)
    scored = truth >= 0
    picture[scored & (adapted == truth) & (source != truth)] = RIGHTED
    picture[scored & (adapted != truth) & (source == truth)] = SPOILT
    return picture


def _image(pixels: np.ndarray, title: str) -> str:
    picture = Image.fromarray(pixels)
    height = round(picture.height * WIDTH / picture.width)
    smooth = title == "input"
    resampling = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    buffer = io.BytesIO()
    made = picture.resize((WIDTH, height), resampling)
    if smooth:
        made.save(buffer, "JPEG", quality=85)
    else:
        made.save(buffer, "PNG", optimize=True)
    kind = "jpeg" if smooth else "png"
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img src='data:image/{kind};base64,{data}' alt='{title}' width='{WIDTH}' height='{height}'>"
