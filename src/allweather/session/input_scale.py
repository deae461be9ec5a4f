"""Whether a network would rather see larger images: what its entropy says on a stream's first frames."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import torch

from allweather.errors import InputError
from allweather.methods.losses import mean_entropy
from allweather.methods.views import resized
from allweather.models.copying import independent_copy
from allweather.models.placing import device_of
from allweather.models.segmenter import Segmenter
from allweather.pictures.convert import as_images
from allweather.session.arguments import check_model
from allweather.session.steps import unfit
from allweather.session.streaming import check_frames, picture_of

LARGER = 1.5
BELOW = 0.92  # of the ratio: right in 9 of 12 cells of four networks (docs/results/carry-over.md)
FRAMES = 8


@dataclass(frozen=True)
class ScaleAdvice:
    """At which scale a network's predictions are surer.

    Attributes:
        scale: by which to enlarge images, 1 or 1.5.
        ratio: the mean entropy of the predictions at 1.5 times the images' size to that at their own.
        frames: on how many images.
    """

    scale: float
    ratio: float
    frames: int


@torch.no_grad()
def advise_scale(model: Segmenter, pictures: Iterable[object], *, below: float = BELOW) -> ScaleAdvice:
    """Compares the entropy of the network's own predictions at the pictures' size and at 1.5 times it; needs no labels.

    A network that was trained on larger pictures than it is given (2048×1024 against 480×352) is surer of enlarged
    ones. Nothing adapts; a copy looks at the pictures, so the network is left as it is.

    Args:
        model: the source network.
        pictures: of a stream, as `Session.stream` takes them; of the first eight those that are finite are looked at.
        below: enlarge where the ratio of the entropies is under this.

    Raises:
        NetworkError: when `model` is no `Segmenter`, or cannot be copied.
        InputError: for what is no stream or holds no finite picture, and as a session does for what is no picture.
    """
    check_frames(pictures, "advise_scale")
    copy = independent_copy(check_model(model, "advise_scale", "advise_scale({}, pictures)"))
    own, larger, frames = 0.0, 0.0, 0
    for picture in islice(pictures, FRAMES):
        images = as_images(picture_of(picture))[0].to(device_of(copy), torch.float32)
        if unfit(images, learns=False):
            continue
        own += float(mean_entropy(copy(images)))
        larger += float(mean_entropy(copy(resized(images, LARGER))))
        frames += 1
    if not frames:
        raise InputError("expected at least one picture to choose a scale by that is finite, got none.")
    ratio = larger / max(own, 1e-12)
    return ScaleAdvice(LARGER if ratio < below else 1.0, ratio, frames)
