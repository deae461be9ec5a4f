"""An image at a multiple of its size, by whole numbers: 720 at 0.7 is 504, where floats may give 503."""

from fractions import Fraction
from typing import Any

from torch import Tensor
from torch.nn import functional


def scaled(side: int, scale: float) -> int:
    """A side, or its symbol in a graph, at `scale`, rounded down."""
    times, parts = Fraction(scale).limit_denominator(1000).as_integer_ratio()  # a program keeps whole numbers alone
    return side * times // parts or 1


def resampled(images: Tensor, scale: float) -> Tensor:
    """Images B×C×H×W at `scale`."""
    if scale == 1.0:
        return images
    size: Any = {"size": [scaled(side, scale) for side in images.shape[-2:]]}
    if (4 * scale).is_integer() or scale == 0.8:  # the same, and the catalogue's bits stay
        size = {"scale_factor": scale}
    return functional.interpolate(images, **size, mode="bilinear", antialias=scale < 1.0)
