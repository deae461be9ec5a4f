"""A method seen at work: normalized cut and entropy at each of its forward passes, and a way to stop between two."""

from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor
from torch.nn import functional

from allweather.errors import AllWeatherError
from allweather.methods.losses import mean_entropy
from allweather.methods.method import Batch, Method, Objective, State
from allweather.models.segmenter import Segmenter
from allweather.ncut import Affinity

SIDE = 128  # pixels of the longer side at which the normalized cut is taken, whatever the method's own
SIGMA_XY = 100.0  # of the affinity, in pixels of the picture, as MALL's

See = Callable[[float, float], None]


class CancelledError(AllWeatherError):
    """The visitor has stopped the run; the picture in hand leaves no trace."""


def watched(method: Method, see: See, stop: Callable[[], bool]) -> Method:
    """The same method with the same settings, which tells what it sees.

    Args:
        see: called with normalized cut and mean entropy (in nats) of the prediction at each forward pass that adapts.
        stop: asked before each; where it says so, the session raises CancelledError and is as before the picture.
    """

    def objective(model: Segmenter, state: State, batch: Batch) -> Objective:
        if stop():
            raise CancelledError("the run was cancelled.")
        found = method.objective(model, state, batch)
        see(*signs(batch, found.logits))
        return found

    made = copy(method)
    made.__dict__["objective"] = objective  # beside the fields, which are frozen and checked, and stay so
    return made


@torch.no_grad()
def signs(batch: Batch, logits: Tensor) -> tuple[float, float]:
    """Normalized cut and mean entropy of a prediction B×C×H×W of the batch's images."""
    share = min(1.0, SIDE / max(logits.shape[2:]))
    size = [max(1, round(side * share)) for side in logits.shape[2:]]
    scores = functional.interpolate(logits.detach().float(), size, mode="bilinear").softmax(1)
    affinity = batch.once("serve.affinity", lambda: _affinity(batch.images, size, share))
    return float(affinity.normalized_cut(scores).mean()), float(mean_entropy(logits.detach()))


def _affinity(images: Tensor, size: list[int], share: float) -> Affinity:
    small = functional.interpolate(images, size, mode="bilinear", antialias=True)
    return Affinity.from_image(small, sigma_xy=SIGMA_XY * share)
