"""Predictions at a picture's own size, a stripe of rows at a time: the logits of a large picture are never whole."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from allweather.errors import NotFiniteError
from allweather.finite import all_finite

STRIPE = 1 << 20  # logits of one stripe, all classes together


def stripes(logits: Tensor, shape: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
    """Logits C×h×w enlarged bilinearly to (H, W), rows from top to bottom: where they belong, and their logits C×n×W.

    As `functional.interpolate(mode="bilinear")` but for the last bit, and the same bits whatever the stripes.
    """
    height = max(1, STRIPE // (logits.shape[0] * shape[1]))
    whole = (logits.shape[1], logits.shape[2]) == shape
    for top in range(0, shape[0], height):
        bottom = min(top + height, shape[0])
        yield slice(top, bottom), logits[:, top:bottom] if whole else _rows(logits, shape, top, bottom)


@torch.no_grad()
def labels_at(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Class of each pixel, H×W, of logits C×h×w enlarged bilinearly to (width, height).

    uint8; uint16 where there are more than 256 classes.

    Raises:
        NotFiniteError: for logits of which no class can be told.
    """
    _check_finite(logits)
    labels = torch.empty(size[1], size[0], dtype=_holding(logits), device=logits.device)
    for rows, part in stripes(logits, (size[1], size[0])):
        labels[rows] = part.max(0)[1]  # as argmax(0), in a ninth of its time
    found = labels.cpu().numpy()
    return found if found.dtype == np.uint8 else found.astype(np.uint16)


@torch.no_grad()
def classify(logits: Tensor, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Confidence (float32) and class of each pixel, H×W each, of logits C×h×w enlarged bilinearly to (H, W).

    Raises:
        NotFiniteError: as `labels_at`.
    """
    _check_finite(logits)
    height, width = shape
    labels = torch.empty(height, width, dtype=_holding(logits), device=logits.device)
    confidence = torch.empty(height, width, dtype=torch.float32, device=logits.device)
    for rows, part in stripes(logits, (height, width)):
        confidence[rows], labels[rows] = part.softmax(0).max(0)
    return confidence.cpu().numpy(), labels.cpu().numpy()


@torch.no_grad()
def confidence_at(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The largest probability of each pixel, uint16 H×W, 0..65535 for 0..1, of logits enlarged to (width, height).

    Raises:
        NotFiniteError: as `labels_at`.
    """
    _check_finite(logits)
    width, height = size
    grey = np.empty((height, width), np.uint16)
    for rows, part in stripes(logits, (height, width)):
        grey[rows] = (part.softmax(0).amax(0) * 65535).round().cpu().numpy()
    return grey


def _check_finite(logits: Tensor) -> None:
    """Refuses what would come out as class 0, or as any other by chance."""
    if not all_finite(logits):
        raise NotFiniteError(
            "expected a prediction of finite logits, got NaN or infinite ones. Look at the weights, and try float32 in "
            "place of bf16, and the network as it came: method source."
        )


def _holding(logits: Tensor) -> torch.dtype:
    """The type that holds every class."""
    return torch.uint8 if logits.shape[0] <= 256 else torch.int32


def _rows(logits: Tensor, shape: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Rows `top` to `bottom` of the enlarged logits: first between rows, then, each row alone, between columns."""
    height, width = shape
    if logits.shape[1] == height:
        rows = logits[:, top:bottom]
    else:
        above, below, share = (values[top:bottom].to(logits.device) for values in _between(logits.shape[1], height))
        share = share.to(logits.dtype)[:, None]
        rows = logits.index_select(1, above).mul_(1 - share).add_(logits.index_select(1, below).mul_(share))
    if logits.shape[2] == width:
        return rows
    wide = functional.interpolate(rows.flatten(0, 1)[None], width, mode="linear")[0]  # the bits of mode="bilinear"
    return wide.view(len(logits), bottom - top, width)


def _between(short: int, long: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `long` places the two of `short` that it lies between, and how far it is on the way to the second."""
    scale = torch.tensor(short, dtype=torch.float32) / long  # rounded as torch's own kernel rounds it
    place = (scale.double() * (torch.arange(long, dtype=torch.float64) + 0.5) - 0.5).float().clamp(0, short - 1)
    first = place.floor().long()
    return first, (first + 1).clamp_max(short - 1), place - first
