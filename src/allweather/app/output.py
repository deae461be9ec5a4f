"""The output folder of `allweather adapt`: labels, colors, overlays and the record, complete after every image."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from allweather.app.console import warn
from allweather.bench.decisions import decisions_of
from allweather.bench.evaluate import Outcome
from allweather.bench.record import describe_result
from allweather.bench.record_file import read_adapted
from allweather.classes import ClassSet
from allweather.data.images import is_whole, write_json
from allweather.data.stream import Frame
from allweather.errors import AllWeatherError
from allweather.pictures.drawing import blend, colorize
from allweather.pictures.enlarge import confidence_at, labels_at
from allweather.pictures.writing import write_image
from allweather.rgb import read_upright

SUFFIXES = {"labels": "png", "color": "png", "overlay": "jpg", "confidence": "png"}  # folder of OUT → suffix
COMPATIBLE = {"format", "versions"}  # what may differ between the runs that fill one folder


@dataclass
class Output:
    """The output folder and its record, complete after every image.

    Attributes:
        folder: OUT.
        head: what made the results.
        images: what became of each image, by name.
        failures: why an image has no prediction, by name.
        confidence: whether the largest probability of each pixel is written too.
    """

    folder: Path
    head: dict[str, Any]
    images: dict[str, dict[str, Any]]
    failures: dict[str, str]
    confidence: bool = False

    @classmethod
    def open(cls, folder: Path, head: dict[str, Any], resume: bool, confidence: bool = False) -> "Output":
        """An empty folder, or the state of an earlier run of the same settings.

        Raises:
            AllWeatherError: when the folder already holds a run and `resume` is off, or one of other settings.
            InputError: when its record is damaged.
        """
        made = cls(folder, json.loads(json.dumps(head)), {}, {}, confidence)
        path = folder / "record.json"
        if not path.exists():
            made._save()
            return made
        if not resume:
            raise AllWeatherError(f"{folder} already holds a run. Add --resume to finish it, or choose another --out.")
        earlier = read_adapted(path)
        different = sorted(key for key in made.head.keys() - COMPATIBLE if made.head[key] != earlier.get(key))
        if different:
            raise AllWeatherError(
                f"{path} is of another run: {', '.join(different)} differ. Repeat its settings or choose another --out."
            )
        made.images = {name: entry for name, entry in earlier["images"].items() if made._is_whole(name)}
        return made

    def write(self, outcome: Outcome, classes: ClassSet) -> None:
        """The label, color and overlay images of one outcome, and its line in the record."""
        if outcome.frame is None or outcome.logits is None:
            self.failures[outcome.name] = outcome.failure or "no prediction"
            warn(self.failures[outcome.name])
            return
        labels = labels_at(outcome.logits, outcome.frame.size)
        colors = colorize(labels, classes)
        write_image(self._place("color", outcome.name), colors)
        write_image(self._place("overlay", outcome.name), blend(picture_of(outcome.frame), colors))
        if self.confidence:
            write_image(self._place("confidence", outcome.name), confidence_at(outcome.logits, outcome.frame.size))
        write_image(self._label(outcome.name), labels)
        self.images[outcome.name] = _entry(outcome)
        self._save()

    def finish(self) -> None:
        """Writes the record a last time, failures included."""
        self._save()

    def _save(self) -> None:
        found = {"decisions": decisions_of({"images": self.images}), "images": self.images, "failures": self.failures}
        write_json(self.folder / "record.json", {**self.head, **found})

    def _is_whole(self, name: str) -> bool:
        """Whether the label image is there and no picture of this image is empty or cut, as a power failure leaves."""
        wanted = {"labels", "confidence"} if self.confidence else {"labels"}
        places = {kind: self._place(kind, name) for kind in SUFFIXES}
        return all(is_whole(path) for kind, path in places.items() if kind in wanted or path.exists())

    def _place(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{name}.{SUFFIXES[kind]}"

    def _label(self, name: str) -> Path:
        return self._place("labels", name)


def picture_of(frame: Frame) -> np.ndarray:
    """The image at its stored size, H×W×3 uint8; read again only where the stream did not keep it.

    Raises:
        ImageError: when it has to be read again and cannot.
    """
    if frame.picture is not None:
        return frame.picture
    if frame.path is not None and (frame.image.shape[2], frame.image.shape[1]) != frame.size:
        return np.asarray(read_upright(frame.path))
    return np.asarray((frame.image * 255).round().byte().permute(1, 2, 0))


def _entry(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    if result is None:
        return {}
    return {
        "losses": [round(loss, 6) for loss in result.losses],
        "watched": [round(loss, 6) for loss in result.watched],
        **describe_result(result),
    }
