"""What can be written of one frame's prediction, each part made once and only where it is asked for."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image
from torch import Tensor

from allweather.classes import ClassSet
from allweather.data.stream import Frame
from allweather.pictures.convert import pixels_of
from allweather.pictures.drawing import blend, colorize
from allweather.pictures.enlarge import confidence_at, labels_at
from allweather.rgb import read_upright


@dataclass(frozen=True, eq=False)
class Drawn:
    """A frame's prediction at the frame's stored size.

    Attributes:
        frame: what was predicted.
        logits: C×h×w.
        classes: the network's.
    """

    frame: Frame
    logits: Tensor
    classes: ClassSet

    @cached_property
    def labels(self) -> np.ndarray:
        """H×W uint8, or uint16 for more than 256 classes."""
        return labels_at(self.logits, self.frame.size)

    @cached_property
    def color(self) -> np.ndarray:
        """H×W×3 uint8."""
        return colorize(self.labels, self.classes)

    @cached_property
    def picture(self) -> np.ndarray:
        """The frame itself, H×W×3 uint8.

        Raises:
            ImageError: when it has to be read again and cannot.
        """
        return picture_of(self.frame)

    @cached_property
    def overlay(self) -> np.ndarray:
        """The colors over the picture, H×W×3 uint8."""
        return blend(self.picture, self.color)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The largest probability, H×W uint16, 0..65535 for 0..1."""
        return confidence_at(self.logits, self.frame.size)


def picture_of(frame: Frame) -> np.ndarray:
    """The image at its stored size, H×W×3 uint8; read again only where the stream did not keep it.

    Raises:
        ImageError: when it has to be read again and cannot.
    """
    if frame.picture is not None:
        return frame.picture
    if frame.path is not None and (frame.image.shape[2], frame.image.shape[1]) != frame.size:
        return np.asarray(read_upright(frame.path))
    return pixels_of(frame.image)


def shrunk(picture: np.ndarray, width: int) -> np.ndarray:
    """The picture at this width if it is wider, its shape kept."""
    if picture.shape[1] <= width:
        return picture
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
