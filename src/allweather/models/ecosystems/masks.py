"""Networks that give masks with classes (MaskFormer and its kin), as networks that give logits per pixel."""

from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from allweather.models.ecosystems.naming import Selection
from allweather.models.ecosystems.sizes import Sizes
from allweather.models.outputs import log_of

STRIPE = 2**24  # elements of enlarged masks that are held at once


class MaskLogits(nn.Module):
    """A mask network as one that gives logits per pixel: normalised images B×3×H×W to B×C×H×W.

    Masks are enlarged to the image's size before the sigmoid, as their authors do. The score of a class at a pixel is
    Σ over the queries of P(class | query), no-object left out, times the mask's sigmoid (Cheng et al., MaskFormer,
    NeurIPS 2021, section 3.4). The logarithm is returned, so that a softmax over the classes normalises the scores and
    the largest stays the largest.

    Args:
        task: token ids 1×77 of the sentence that OneFormer is told; None for networks that are told nothing.
        selection: which of its classes make the set's; None for all, as they are.
        sizes: what image sizes it takes.
        split: how images are cut for a network of one square size; None for networks that take any.
    """

    task: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        task: Tensor | None = None,
        *,
        selection: Selection | None = None,
        sizes: Sizes | None = None,
        split: "Split | None" = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("task", task, persistent=False)
        self.selection = selection
        self.sizes = sizes or Sizes("the network")
        self.split = split

    def forward(self, pixels: Tensor) -> Tensor:
        scores = self._scores(pixels) if self.split is None else self._split_scores(pixels, self.split)
        return log_of(scores)

    def _scores(self, pixels: Tensor) -> Tensor:
        output = self.sizes.call(self._run, pixels)
        classes = output.class_queries_logits.softmax(2)[..., :-1]
        if self.selection is not None:
            classes = self.selection.probabilities(classes)
        return combine(classes, output.masks_queries_logits, (pixels.shape[-2], pixels.shape[-1]))

    def _run(self, pixels: Tensor) -> Any:
        told = {} if self.task is None else {"task_inputs": self.task.expand(len(pixels), -1)}
        return self.network(pixel_values=pixels, **told)

    def _split_scores(self, pixels: Tensor, split: "Split") -> Tensor:
        """Scores of squares along the longer side, averaged where they overlap, at the size of `pixels`."""
        size = (pixels.shape[-2], pixels.shape[-1])
        fitted = functional.interpolate(pixels, split.fitted(size), mode="bilinear", antialias=True)
        along = 2 if fitted.shape[2] > fitted.shape[3] else 3
        starts = split.starts(fitted.shape[along])
        parts = [self._scores(fitted.narrow(along, start, split.side)) for start in starts]
        total = fitted.new_zeros(len(pixels), parts[0].shape[1], *fitted.shape[2:])
        seen = fitted.new_zeros(1, 1, *fitted.shape[2:])
        for start, part in zip(starts, parts, strict=True):
            total = total + _placed(part, along, start, fitted.shape[along])
            seen.narrow(along, start, split.side).add_(1)
        return functional.interpolate(total / seen, size, mode="bilinear")


@dataclass(frozen=True)
class Split:
    """How an image is cut for a network that takes squares of one size, as transformers does for EoMT.

    The image is resampled so that its shorter side is `side` pixels, and cut along the longer one into as few squares
    as cover it, evenly spaced.
    """

    side: int

    def fitted(self, size: tuple[int, int]) -> list[int]:
        """The size (height, width) to which an image of `size` is resampled."""
        shorter = min(size)
        return [self.side if length == shorter else int(self.side * length / shorter) for length in size]

    def starts(self, length: int) -> list[int]:
        """Where squares begin along a side of `length` pixels."""
        count = ceil(length / self.side)
        overlap = (count * self.side - length) / (count - 1) if count > 1 else 0
        return [int(index * (self.side - overlap)) for index in range(count)]


def combine(classes: Tensor, masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Scores B×C×H×W of classes B×Q×C (probabilities) and masks B×Q×h×w (logits), at `size` (H, W).

    Enlarged masks take Q×H×W numbers; they are made, used and dropped stripe by stripe, and again for the gradient.
    """
    batch, queries = masks.shape[:2]
    rows = max(1, STRIPE // (batch * queries * size[1]))
    if rows >= size[0]:
        return _stripe(classes, masks, size, 0, size[0])
    stripes = [(start, min(start + rows, size[0])) for start in range(0, size[0], rows)]
    if not (torch.is_grad_enabled() and (classes.requires_grad or masks.requires_grad)):
        return torch.cat([_stripe(classes, masks, size, *stripe) for stripe in stripes], 2)
    again = partial(checkpoint, _stripe, classes, masks, size, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(*stripe) for stripe in stripes], 2)


def _stripe(classes: Tensor, masks: Tensor, size: tuple[int, int], start: int, end: int) -> Tensor:
    """The rows from `start` to `end` of what `combine` gives."""
    height = masks.shape[2]
    if (start, end) == (0, size[0]):
        enlarged = functional.interpolate(masks, size, mode="bilinear")
    else:
        row = torch.arange(start, end, device=masks.device, dtype=torch.float32)
        place = ((row + 0.5) * (height / size[0]) - 0.5).clamp_min(0)  # as functional.interpolate places it
        above = place.long().clamp_max(height - 1)
        below = (above + 1).clamp_max(height - 1)
        weight = (place - above).to(masks.dtype).view(-1, 1)
        rows = torch.lerp(masks[:, :, above], masks[:, :, below], weight)
        enlarged = functional.interpolate(rows, (end - start, size[1]), mode="bilinear")
    return torch.einsum("bqc,bqhw->bchw", classes, enlarged.sigmoid())


def _placed(part: Tensor, along: int, start: int, length: int) -> Tensor:
    """`part` with zeros around it where it lies along dimension 2 or 3 of something `length` long."""
    after = length - start - part.shape[along]
    return functional.pad(part, (0, 0, start, after) if along == 2 else (start, after))
