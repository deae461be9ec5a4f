"""Landmark appearances of a sample of pixels, and the columns of the affinity's appearance factor that they give."""

from dataclasses import dataclass
from math import ceil, e, hypot, log2

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FAR = 4e3  # a |x|² from which on |x|² − 2x·l + |l|² loses digits of float32
BLOCK = 16  # columns; a product with 40 takes as long as one with 48
_PIVOTS = 2048  # pixels among which landmarks are chosen first
_SAMPLES = 4096  # pixels whose kernel chooses the columns
_PER_COLUMN = 2  # landmarks at most
_SPAN = 2.5  # times the error of the columns, the mean residual of the landmarks
_GRADIENT = 3.0  # a mean residual of the landmarks does to the gradient what a third of it does within their span
_EIGENVALUES = {torch.bfloat16: 1e-3, torch.float32: 1e-5, torch.float64: 1e-6}  # below them, rounding alone


@dataclass(frozen=True, eq=False)
class Columns:
    """ψ = K(pixels, landmarks) · root, on the device of the pixels.

    Attributes:
        landmarks: B×m×D, appearances divided by their σ.
        root: B×m×r, in the type of the large products.
        error: about the relative error of the operator's gradient: ‖K − ΨΨᵀ‖ / ‖K‖ over sampled pixels, in the
            Frobenius norm, within the landmarks' span and beyond it.
        farthest: the largest |x|² of a sampled pixel or landmark.
    """

    landmarks: Tensor
    root: Tensor
    error: float
    farthest: float


def gaussian(a: Tensor, b: Tensor) -> Tensor:
    """exp(−|a−b|²/2) of appearances …×n×D and …×m×D already divided by their σ; …×n×m."""
    near = max(float(points.square().sum(-1).max()) for points in (a, b)) < FAR
    mode = "use_mm_for_euclid_dist" if near else "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(a, b, compute_mode=mode)
    return distance.square_().mul_(-0.5 * log2(e)).exp2_()  # exp is slow where it gives 0


def choose_columns(
    points: Tensor, valid: Tensor, width: int, most: int, error: float | None, products: torch.dtype
) -> Columns:
    """Landmarks and root for appearances `points` B×N×D (divided by σ, of mean 0) of which `valid` B×N count.

    Landmarks are pivots of a Cholesky factorisation over a sample of the pixels, each the largest residual; a Lloyd
    step then moves every one to the mean of the pixels nearest to it. Of what they span, ψ has the directions in
    which the sampled pixels lie most. The sample is worked on by the CPU, wherever the pixels are.

    Args:
        width: pixels of an image row.
        most: columns, at most.
        error: r is the least, in whole blocks, that leaves this share of the samples' kernel (Frobenius norm) in every
            image; None takes `most` columns.
        products: the type of the large products.
    """
    kept = [image[flags] for image, flags in zip(*_sample(points, valid, width, _SAMPLES), strict=True)]
    samples = [image if len(image) else points.new_zeros(1, points.shape[2], device="cpu") for image in kept]
    parts = [_spanned(image, _PER_COLUMN * most, error or 0, products) for image in samples]
    rank = max(_columns(part.shares, most, error) for part in parts)
    return Columns(
        _stacked([part.landmarks for part in parts]).to(points),
        _stacked([_first(part.directions, rank) for part in parts], repeat=False).to(points.device, products),
        max(part.error(rank) for part in parts),
        max(float(image.square().sum(-1).max()) for image in samples),
    )


@dataclass(frozen=True, eq=False)
class _Span:
    """Landmarks m×D of an image, columns m×q of their span, and each one's share of the samples' kernel, descending."""

    landmarks: Tensor
    directions: Tensor
    shares: Tensor

    def error(self, rank: int) -> float:
        """About the relative error of the gradient with the first `rank` columns."""
        within = float(_left(self.shares)[min(rank, len(self.shares))])
        beyond = max(0.0, 1 - float(self.shares.sum())) / _GRADIENT
        return hypot(within, beyond)


def _spanned(samples: Tensor, most: int, error: float, products: torch.dtype) -> _Span:
    """As many landmarks as leave all samples, not only those they come from, a mean residual of `_SPAN` · `error`."""
    left, among = _SPAN * error, _PIVOTS
    while True:
        with np.errstate(under="ignore"):  # samples far apart have the kernel 0, whatever the caller has NumPy raise
            chosen = _pivots(samples[:: ceil(len(samples) / among)], most, left)
        landmarks = _lloyd(samples, chosen)
        directions, shares = _directions(samples, landmarks, products)
        enough = 1 - float(shares.sum()) <= 1.25 * _SPAN * error
        if enough or len(landmarks) == most or among >= len(samples):
            return _Span(landmarks, directions, shares)
        left, among = left / 2, 2 * among


def _sample(points: Tensor, valid: Tensor, width: int, count: int) -> tuple[Tensor, Tensor]:
    stride = sampling_stride(points.shape[1], width, count)
    return points[:, ::stride].cpu(), valid[:, ::stride].cpu()


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


def _pivots(samples: Tensor, most: int, residual_left: float) -> Tensor:
    """Samples m×D in order of choice, until their mean residual is at most `residual_left`."""
    points = samples.numpy() if float(samples.square().sum(1).max()) < FAR else samples.double().numpy()
    halves = np.square(points).sum(1) / 2
    axes = np.ascontiguousarray(points.T)
    residual = np.ones_like(halves)
    factor: NDArray[np.floating] = np.empty((min(most, len(points)), len(points)), points.dtype)
    chosen: list[int] = []
    for k, row in enumerate(factor):
        pivot = int(residual.argmax())
        np.exp(points[pivot] @ axes - (halves + halves[pivot]), out=row)
        row -= factor[:k, pivot] @ factor[:k]
        row /= np.sqrt(max(residual[pivot], 1e-7))
        residual -= np.square(row)
        np.maximum(residual, 0, out=residual)
        residual[pivot] = 0
        chosen.append(pivot)
        if residual.mean() <= max(residual_left, 1e-9):
            break
    return samples[chosen]


def _lloyd(samples: Tensor, centres: Tensor) -> Tensor:
    """Centres m×D moved to the mean of the samples nearest to each."""
    nearest = torch.cdist(samples, centres).argmin(1)
    count = torch.bincount(nearest, minlength=len(centres))[:, None]
    total = torch.zeros_like(centres).index_add_(0, nearest, samples)
    return torch.where(count > 0, total / count.clamp_min(1), centres)


def _stacked(parts: list[Tensor], repeat: bool = True) -> Tensor:
    """B×m×D of parts m×D; a shorter one repeats its last landmark, which adds no direction, or goes on with zeros."""
    most = max(map(len, parts))
    ends = [(part[-1:] if repeat else torch.zeros_like(part[-1:])).expand(most - len(part), -1) for part in parts]
    return torch.stack([torch.cat(pair) for pair in zip(parts, ends, strict=True)])


def _directions(samples: Tensor, landmarks: Tensor, products: torch.dtype) -> tuple[Tensor, Tensor]:
    """Columns m×q of the landmarks' span, q ≤ m, and each one's share of the samples' kernel, descending."""
    values, vectors = torch.linalg.eigh(gaussian(landmarks, landmarks).double())
    kept = values > _EIGENVALUES[products] * values[-1]
    whiten = vectors[:, kept] * values[kept].rsqrt()
    explained = gaussian(samples, landmarks) @ whiten.to(samples)
    shares, turn = torch.linalg.eigh((explained.mT @ explained).double() / len(samples))
    return (whiten @ turn).flip(1), shares.clamp_min(0).flip(0)


def _left(shares: Tensor) -> Tensor:
    """What is left of the samples' kernel, relative and in the Frobenius norm, behind 0, 1, … columns."""
    squares = shares.square().flip(0).cumsum(0).flip(0)
    return torch.nn.functional.pad((squares / squares[0]).sqrt(), (0, 1))


def _columns(shares: Tensor, most: int, error: float | None) -> int:
    """The columns that an image wants: of those with any share, the fewest that leave `error`, in whole blocks."""
    some = int((shares > 1e-7).sum())
    wanted = some if error is None else int((_left(shares) > error).sum())
    return min(most, BLOCK * ceil(min(some, wanted) / BLOCK))


def _first(directions: Tensor, rank: int) -> Tensor:
    """The first `rank` columns, of zeros where there are fewer."""
    missing = max(0, rank - directions.shape[1])
    return torch.nn.functional.pad(directions, (0, missing))[:, :rank]
