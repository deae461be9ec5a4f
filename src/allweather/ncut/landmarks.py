"""Landmark appearances for the Nyström factor of the affinity, and the rank that a stated error asks for."""

from collections.abc import Sequence
from math import e, log2

import torch
from torch import Tensor

RANKS = (16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224)  # that `auto` tries below the largest allowed
_CANDIDATES = 1024
_SAMPLES = 4096


def gaussian(a: Tensor, b: Tensor) -> Tensor:
    """exp(−|a−b|²/2) of appearances …×n×D and …×m×D already divided by their σ; …×n×m."""
    return torch.cdist(a, b).square_().mul_(-0.5 * log2(e)).exp2_()  # exp is slow where it gives 0


def choose_landmarks(points: Tensor, valid: Tensor, width: int, ranks: Sequence[int], error: float) -> Tensor:
    """Landmarks B×r×D for appearances `points` B×N×D (divided by σ) of which `valid` B×N count.

    Pivots of a Cholesky factorisation over a sample of the pixels, each the largest residual weighted by the
    density around it; two Lloyd steps then move every landmark to the mean of the pixels nearest to it.

    Args:
        width: pixels of an image row.
        ranks: ascending; r is the first whose mean residual over the sample is at most `error` in every image, or the
            last where none is.
    """
    candidates, counted = _sample(points, valid, width, _CANDIDATES)
    kernel = gaussian(candidates, candidates) * (counted[:, :, None] * counted[:, None, :])
    most = candidates.shape[1]
    stops = sorted({min(rank, most) for rank in ranks})
    chosen = _pivots(kernel, counted, stops, error)[..., None].expand(-1, -1, points.shape[2])
    samples, weights = _sample(points, valid, width, _SAMPLES)
    return _lloyd(samples, weights, candidates.gather(1, chosen), steps=2)


def _sample(points: Tensor, valid: Tensor, width: int, count: int) -> tuple[Tensor, Tensor]:
    stride = sampling_stride(points.shape[1], width, count)
    return points[:, ::stride], valid[:, ::stride].to(points.dtype)


def sampling_stride(pixels: int, width: int, count: int) -> int:
    """The stride that takes about `count` of an image's pixels, row after row, from all over it.

    Where rows and long strides fit each other by a simple fraction, samples would stay in few columns or on a diagonal.
    """
    first = max(1, pixels // count) | 1
    simple = (0, 1 / 3, 1 / 2, 2 / 3, 1)
    fair = (
        stride
        for stride in range(first, 2 * first, 2)
        if stride <= width / 8 or all(abs(_rest(stride, width) - part) >= 0.06 for part in simple)
    )
    return next(fair, first)


def _rest(stride: int, width: int) -> float:
    """What is left of the longer of the two after whole multiples of the shorter, as a share of the shorter."""
    whole = max(stride, width) / min(stride, width)
    return whole % 1


def _pivots(kernel: Tensor, counted: Tensor, stops: list[int], error: float) -> Tensor:
    """Indices B×r in order of choice; r is the first of `stops` whose mean residual is at most `error`, or the last."""
    batch, size, _ = kernel.shape
    density = torch.linalg.vector_norm(kernel, dim=2).square_()
    residual = counted.clone()
    factor = kernel.new_zeros(batch, stops[-1], size)  # B×r×M, row k belongs to pivot k
    picked: list[Tensor] = []
    for stop in stops:
        for k in range(len(picked), stop):
            pivot = (residual * density).argmax(1)[:, None, None]
            known = factor[:, :k].gather(2, pivot.expand(-1, k, -1)).mT @ factor[:, :k]  # B×1×M
            scale = residual.gather(1, pivot[:, 0]).clamp_min_(1e-7).rsqrt_()
            row = kernel.gather(1, pivot.expand(-1, -1, size)).sub_(known)[:, 0].mul_(scale)
            factor[:, k] = row
            residual.addcmul_(row, row, value=-1).clamp_min_(0).scatter_(1, pivot[:, 0], 0)
            picked.append(pivot[:, 0, 0])
        if stop < stops[-1] and float((residual.sum(1) / counted.sum(1).clamp_min(1)).max()) <= error:
            break
    return torch.stack(picked, 1)


def _lloyd(samples: Tensor, weights: Tensor, centres: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        nearest = torch.cdist(samples, centres).argmin(2)
        count = torch.zeros_like(centres[..., 0]).scatter_add_(1, nearest, weights)
        index = nearest[..., None].expand_as(samples)
        total = torch.zeros_like(centres).scatter_add_(1, index, samples * weights[..., None])
        centres = torch.where(count[..., None] > 0, total / count.clamp_min(1)[..., None], centres)
    return centres
