"""What one call of a session returns."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from allweather.classes import ClassSet
from allweather.errors import InputError, check_known
from allweather.pictures.convert import Picture, pixels_of, read_image, resample
from allweather.pictures.drawing import blend, colorize, overlay_of, palette_of
from allweather.pictures.enlarge import labels_at
from allweather.pictures.writing import write_image
from allweather.session.guard import Decision
from allweather.sizes import check_asked

Drawn = Literal["labels", "color", "overlay"]
JPEG = (".jpg", ".jpeg")


@dataclass(frozen=True, eq=False)
class Result:
    """The prediction for one call of a session, and how it was made.

    Attributes:
        logits: float32, B×C×H×W; C×H×W for a single image.
        losses: the loss at each iteration; empty where nothing was minimised.
        watched: the value that early stopping follows, at each iteration.
        iterations: number of updates.
        stop: why the updates ended: `cap`, `plateau`, `rise`, `no shift` (the image asked for none), or `none` (nothing
            was minimised).
        decision: what the guard decided, and why. The prediction belongs to the state that it decided on.
        seconds: wall-clock time of the call.
        images: the input, RGB in [0, 1], 3×H×W or B×3×H×W; a copy of what was passed. None where it was not kept.
        classes: the network's class set; None where the result was made without one.
    """

    logits: Tensor
    losses: tuple[float, ...]
    watched: tuple[float, ...]
    iterations: int
    stop: str
    decision: Decision
    seconds: float
    images: Tensor | None = field(default=None, repr=False)
    classes: ClassSet | None = field(default=None, repr=False)

    @property
    def labels(self) -> Tensor:
        """The class of each pixel, uint8 (int32 where there are more than 256 classes), B×H×W or H×W."""
        return self.logits.max(-3).indices.to(torch.uint8 if self.logits.shape[-3] <= 256 else torch.int32)

    def overlay(self, image: Picture | None = None, *, opacity: float = 0.5) -> np.ndarray:
        """The classes' colors over the image: uint8, H×W×3, or B×H×W×3 for a batch.

        `Image.fromarray(result.overlay())` is a picture for PIL and for notebooks.

        Args:
            image: another picture to draw on, such as the photograph before it was resampled; the prediction is
                enlarged to its size. For a single image alone. None draws on the image that was predicted.
            opacity: of the colors, in [0, 1].

        Raises:
            InputError: where the result has no classes or no image, or for a picture that cannot be read.
            SettingsError: for an opacity outside [0, 1].
        """
        classes, single = self._classes(), self.logits.ndim == 3
        if image is not None:
            return overlay_of(self._single("overlay(image)"), pixels_of(read_image(image)), classes, opacity)
        if self.images is None:
            raise InputError("this result did not keep its image: pass one, overlay(image).")
        pairs = [(self.logits, self.images)] if single else zip(self.logits, self.images, strict=True)
        drawn = [overlay_of(logits, pixels_of(picture), classes, opacity) for logits, picture in pairs]
        return drawn[0] if single else np.stack(drawn)

    def save(self, path: Path | str, kind: Drawn = "labels", *, size: tuple[int, int] | None = None) -> None:
        """Writes a single image's prediction, whole or not at all.

        Args:
            path: a .png, or a .jpg for `color` and `overlay`; missing folders are made.
            kind: `labels`, the class indices, with the classes' colors as the file's palette, so that it can be looked
                at and still be scored; `color`; or `overlay`.
            size: (width, height) to enlarge the prediction to, such as the photograph's own; None keeps the logits'.

        Raises:
            InputError: for a batch, or another suffix.
            SettingsError: for an unknown kind, or a size that is none.
            AllWeatherError: for a file that cannot be written.
        """
        path, size = Path(path), check_asked(size)
        check_known("kind of picture", kind, get_args(Drawn))
        if path.suffix.lower() not in (".png", *(JPEG if kind != "labels" else ())):
            lossless = "a .png, which keeps every class as it is" if kind == "labels" else "a .png or .jpg"
            raise InputError(f"{path}: expected {lossless}.")
        logits, classes = self._single("save"), self._classes()
        size = size or (logits.shape[2], logits.shape[1])
        labels = labels_at(logits, size)
        draw: dict[Drawn, Callable[[], np.ndarray]] = {
            "labels": lambda: labels,
            "color": lambda: colorize(labels, classes),
            "overlay": lambda: blend(pixels_of(resample(self._kept(), size)), colorize(labels, classes)),
        }
        palette = palette_of(classes).ravel().tolist() if kind == "labels" and labels.dtype == np.uint8 else None
        write_image(path, draw[kind](), palette)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.logits.shape))
        return f"Result({shape} logits, {self.iterations} iterations, stop={self.stop}, decision={self.decision})"

    def _classes(self) -> ClassSet:
        if self.classes is None:
            raise InputError("this result was made without a class set, whose colors it would be drawn in.")
        return self.classes

    def _single(self, asked: str) -> Tensor:
        """The logits C×H×W of a single image."""
        if self.logits.ndim == 4 and len(self.logits) > 1:
            raise InputError(
                f"{asked} takes the result of a single image, this is one of {len(self.logits)}. Call the session with "
                "one image at a time, or draw and write each of result.labels yourself."
            )
        return self.logits if self.logits.ndim == 3 else self.logits[0]

    def _kept(self) -> Tensor:
        if self.images is None:
            raise InputError("this result did not keep its image: save labels or color, or call overlay(image).")
        return self.images if self.images.ndim == 3 else self.images[0]
