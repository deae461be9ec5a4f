"""The camera of a procedural street."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above the street, looking along it.

    Attributes:
        width, height: of the image in pixels.
        focal: in pixels.
        horizon, centre: row and column of the vanishing point.
        lift: height above the ground in metres.
    """

    width: int
    height: int
    focal: float
    horizon: float
    centre: float
    lift: float

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Rightward and downward slope of each pixel's ray, H×W each."""
        y, x = np.mgrid[: self.height, : self.width].astype(np.float32)
        return (x + 0.5 - self.centre) / self.focal, (y + 0.5 - self.horizon) / self.focal
