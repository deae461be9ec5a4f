"""What one call of a session returns."""

from dataclasses import dataclass

import torch
from torch import Tensor


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
        decision: `accepted`; or `shrunk: reason`, `rolled back: reason`, `reset: reason` where the guard took part of
            the update back, all of it, or returned to the source network; or `skipped: reason` where nothing could
            be learnt. The prediction is that of the state decided on, or the unadapted one.
        seconds: wall-clock time of the call.
    """

    logits: Tensor
    losses: tuple[float, ...]
    watched: tuple[float, ...]
    iterations: int
    stop: str
    decision: str
    seconds: float

    @property
    def labels(self) -> Tensor:
        """The class of each pixel, uint8, B×H×W or H×W."""
        return self.logits.argmax(-3).to(torch.uint8)
