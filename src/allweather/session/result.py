"""What one call of a session returns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from allweather.session.guard import Decision


@dataclass(frozen=True)
class Result:
    """The prediction for one batch and how it came about.

    Attributes:
        logits: float32, B×C×H×W, or C×H×W where a single image came.
        losses: the objective at each iteration, in order; empty where nothing was minimised.
        watched: the loss that early stopping follows, at each iteration.
        iterations: updates made.
        stop: why the iterations ended: `cap`, `plateau`, `rise`, `no shift` where the image did not ask for any, or
            `none` where nothing was minimised.
        decision: what became of the update, and why; the prediction is that of the state decided on, or the
            unadapted one.
        seconds: wall-clock time of the call.
    """

    logits: Tensor
    losses: tuple[float, ...]
    watched: tuple[float, ...]
    iterations: int
    stop: str
    decision: Decision
    seconds: float

    @property
    def labels(self) -> Tensor:
        """The class of each pixel, uint8, B×H×W or H×W."""
        return self.logits.argmax(-3).to(torch.uint8)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.logits.shape))
        return f"Result({shape} logits, {self.iterations} iterations, stop={self.stop}, decision={self.decision})"
