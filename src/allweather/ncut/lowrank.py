"""The affinity as landmark appearances × a coarse grid in space: filtering in a few dense matrix products.

A ≈ Σ_kl W_kl diag(φ_k) H B Hᵀ diag(φ_l) + diag(δ), with φ_k(i) the appearance kernel of pixel i and landmark k, W the
inverse of that kernel among the landmarks, H B Hᵀ the space kernel, and δ what makes A_ii = 1; see README.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import e, log2, sqrt

import torch
from torch import Tensor
from torch.nn import functional

from allweather.ncut.landmarks import choose_landmarks, gaussian
from allweather.ncut.space import Axis, axis

_TILE = 1 << 19  # the least numbers of a tile's widest intermediate: 2 MB, so that it stays near the caches
_EIGENVALUES = 1e-5  # of the landmarks' kernel relative to the largest; below it there is only rounding
_FAR = -1e4  # an exponent of 2 that gives exactly 0


@dataclass(frozen=True)
class Factors:
    """All that depends on the images alone.

    Attributes:
        points: B×R×Q×P×(D+2), the pixels of each of R×Q cells as (2x, −|x|², 1), x the appearance in units where
            the kernel is 2^(−|x−l|²); a pixel that does not count has `_FAR` for −|x|².
        landmarks: B×(D+2)×r, the landmarks as (l, 1, −|l|²).
        metric: B×r×r, W.
        blur_y, blur_x: (R+1)×(R+1) and (Q+1)×(Q+1), B of each axis.
        corners: 4×P, the share of each pixel of a cell that goes to the cell's four nodes.
        delta, degree: B×H×W, δ and d = A·1; 0 where a pixel does not count.
        cell_y, cell_x: pixels per cell.
    """

    points: Tensor
    landmarks: Tensor
    metric: Tensor
    blur_y: Tensor
    blur_x: Tensor
    corners: Tensor
    delta: Tensor
    degree: Tensor
    cell_y: int
    cell_x: int

    @property
    def rank(self) -> int:
        """r, the number of landmarks."""
        return self.landmarks.shape[2]


def factorise(appearance: Tensor, mask: Tensor, sigma_xy: float, rank: int | None, error: float) -> Factors:
    """The factors of images whose `appearance` B×D×H×W (divided by its σ) counts where `mask` B×H×W is true."""
    height, width = appearance.shape[2:]
    rows, columns = axis(height, sigma_xy), axis(width, sigma_xy)
    flat, valid = appearance.flatten(2).transpose(1, 2), mask.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)  # |x|² and |l|² stay small beside their difference
    landmarks = choose_landmarks(flat, valid, rank, error)
    unit = sqrt(log2(e) / 2)
    pixels = _augment(flat * unit, valid).transpose(1, 2).unflatten(2, (height, width))
    factors = Factors(
        points=_to_cells(pixels, rows.cell, columns.cell).transpose(3, 4).contiguous(),
        landmarks=_augment_landmarks(landmarks * unit),
        metric=_pseudo_inverse(gaussian(landmarks, landmarks)),
        blur_y=rows.blur.to(appearance),
        blur_x=columns.blur.to(appearance),
        corners=torch.einsum("ap,bq->abpq", rows.weights, columns.weights).flatten(2).flatten(0, 1).to(appearance),
        delta=torch.zeros_like(appearance[:, 0]),
        degree=torch.zeros_like(appearance[:, 0]),
        cell_y=rows.cell,
        cell_x=columns.cell,
    )
    factors.delta.copy_(
        mask * (1 - _space_diagonal(rows, columns, mask).to(appearance) * _appearance_diagonal(factors))
    )
    factors.degree.copy_(filter_scores(mask[:, None].to(appearance.dtype), factors)[:, 0])
    return factors


def filter_scores(scores: Tensor, factors: Factors) -> Tensor:
    """A·S for scores B×C×H×W, in their type."""
    blurred = _blur(_splat(scores, factors), factors)
    filtered = torch.empty_like(scores)
    for tile in _tiles(scores, factors):
        part = scores[:, :, tile.rows].to(factors.delta.dtype)
        filtered[:, :, tile.rows] = (
            _slice(blurred, factors, tile, part.shape) + factors.delta[:, None, tile.rows] * part
        )
    return filtered


def terms_and_gradient(scores: Tensor, factors: Factors, gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    """1 − S_pᵀAS_p / dᵀS_p per image and class, B×C, with its derivative by S as `direction` × `scale`.

    The direction, B×C×H×W (empty unless asked for), is of order one and so fits any floating type; the scale, B×C,
    is float32 or float64. A class without mass, |dᵀS_p| ≤ 1e-12·Σd, has the term and the derivative 0.
    """
    kind = factors.delta.dtype
    moments = _splat(scores, factors)
    blurred = _blur(moments, factors)
    quadratic = torch.einsum("byxcr,byxcr->bc", moments, blurred)
    del moments
    mass = torch.zeros_like(quadratic)
    for tile in _tiles(scores, factors):
        part = scores[:, :, tile.rows].to(kind)
        mass += torch.einsum("bchw,bhw->bc", part, factors.degree[:, tile.rows])
        quadratic += torch.einsum("bchw,bhw->bc", part.square(), factors.delta[:, tile.rows])
    massless = mass.abs() <= 1e-12 * factors.degree.sum((1, 2))[:, None]
    inverse = torch.where(massless, 0, 1 / torch.where(massless, 1, mass))
    ratio = quadratic * inverse
    terms = torch.where(massless, 0, 1 - ratio)
    if not gradient:
        return terms, scores.new_empty(0), inverse
    mean = factors.degree.mean((1, 2))[:, None]
    unit = torch.where(mean > 0, 1 / torch.where(mean > 0, mean, 1), 0)
    return terms, _direction(scores, factors, blurred, ratio, unit), inverse * mean


def _direction(scores: Tensor, factors: Factors, blurred: Tensor, ratio: Tensor, unit: Tensor) -> Tensor:
    """(ratio·d − 2·A S) · unit in the scores' type, B×C×H×W."""
    direction = torch.empty_like(scores)
    by_degree, by_filtered = (ratio * unit)[..., None, None], (-2 * unit)[..., None, None]
    for tile in _tiles(scores, factors):
        part = scores[:, :, tile.rows].to(factors.delta.dtype)
        filtered = _slice(blurred, factors, tile, part.shape).addcmul(factors.delta[:, None, tile.rows], part)
        direction[:, :, tile.rows] = filtered.mul_(by_filtered).addcmul_(factors.degree[:, None, tile.rows], by_degree)
    return direction


@dataclass(frozen=True)
class _Tile:
    """Some rows of cells, [first, last), and the pixel rows they cover."""

    first: int
    last: int
    rows: slice


def _tiles(scores: Tensor, factors: Factors) -> Iterator[_Tile]:
    """Rows of cells whose widest intermediate has `_TILE` numbers, or an eighth of the scores' bytes if more."""
    batch, rows, columns, pixels, _ = factors.points.shape
    each = batch * columns * pixels * max(4 * scores.shape[1], factors.rank)
    least = scores.numel() * scores.element_size() // (8 * factors.delta.element_size())
    step = max(1, max(_TILE, least) // each)
    for first in range(0, rows, step):
        last = min(rows, first + step)
        yield _Tile(first, last, slice(first * factors.cell_y, min(last * factors.cell_y, scores.shape[2])))


def _kernel(factors: Factors, tile: _Tile) -> Tensor:
    """φ of the tile's pixels, B×T×Q×P×r, made anew each time: cheaper than reading it from memory."""
    points = factors.points[:, tile.first : tile.last]
    batch, rows, columns, pixels, _ = points.shape
    exponent = points.flatten(1, 3) @ factors.landmarks
    return exponent.exp2_().view(batch, rows, columns, pixels, -1)


def _splat(scores: Tensor, factors: Factors) -> Tensor:
    """Hᵀ(φ ⊙ S): the scores' moments at the nodes, B×(R+1)×(Q+1)×C×r."""
    batch, rows, columns, _, _ = factors.points.shape
    classes = scores.shape[1]
    nodes = factors.delta.new_zeros(batch, rows + 1, columns + 1, classes, factors.rank)
    for tile in _tiles(scores, factors):
        part = scores[:, :, tile.rows].to(factors.delta.dtype)
        cells = _to_cells(part, factors.cell_y, factors.cell_x)  # B×T×Q×C×P
        weighted = (cells[:, :, :, None] * factors.corners[:, None]).flatten(3, 4)  # B×T×Q×4C×P
        moments = (weighted @ _kernel(factors, tile)).unflatten(3, (4, classes))
        for corner in range(4):
            down, right = divmod(corner, 2)
            target = nodes[:, tile.first + down : tile.last + down, right : columns + right]
            target += moments[:, :, :, corner]
    return nodes


def _blur(nodes: Tensor, factors: Factors) -> Tensor:
    """B and W applied at the nodes."""
    blurred = (factors.blur_y @ nodes.flatten(2)).view(nodes.shape)
    blurred = (factors.blur_x @ blurred.flatten(3)).view(nodes.shape)
    return (blurred.flatten(1, 3) @ factors.metric).view(nodes.shape)


def _slice(nodes: Tensor, factors: Factors, tile: _Tile, shape: torch.Size) -> Tensor:
    """φ ⊙ (H · nodes), summed over the landmarks, at the tile's pixels: `shape` B×C×h×W."""
    columns = factors.points.shape[2]
    around = [
        nodes[:, tile.first + down : tile.last + down, right : columns + right] for down in (0, 1) for right in (0, 1)
    ]
    values = torch.stack(around, 3).flatten(3, 4) @ _kernel(factors, tile).transpose(3, 4)  # B×T×Q×4C×P
    cells = values.unflatten(3, (4, shape[1])).mul_(factors.corners[:, None]).sum(3)
    return _to_pixels(cells, factors.cell_y, factors.cell_x)[:, :, : shape[2], : shape[3]]


def _to_cells(images: Tensor, cell_y: int, cell_x: int) -> Tensor:
    """B×K×H×W cut into cells: B×R×Q×K×P; what the last cells lack is 0, which no score weighs."""
    below, right = -images.shape[2] % cell_y, -images.shape[3] % cell_x
    if below or right:
        images = functional.pad(images, (0, right, 0, below))
    cells = images.unflatten(3, (-1, cell_x)).unflatten(2, (-1, cell_y))  # B×K×R×py×Q×px
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(4, 5)


def _to_pixels(cells: Tensor, cell_y: int, cell_x: int) -> Tensor:
    """B×R×Q×K×P back to B×K×(R·py)×(Q·px), what the last cells lacked included."""
    pixels = cells.unflatten(4, (cell_y, cell_x)).permute(0, 3, 1, 4, 2, 5)
    return pixels.flatten(4, 5).flatten(2, 3)


def _augment(points: Tensor, valid: Tensor) -> Tensor:
    square = torch.where(valid, -points.square().sum(2), _FAR)
    return torch.cat([2 * points, square[..., None], torch.ones_like(square)[..., None]], 2)


def _augment_landmarks(landmarks: Tensor) -> Tensor:
    square = -landmarks.square().sum(2, keepdim=True)
    return torch.cat([landmarks, torch.ones_like(square), square], 2).transpose(1, 2).contiguous()


def _pseudo_inverse(kernel: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(kernel.double())
    kept = values > _EIGENVALUES * values[:, -1:]
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1), 0)
    return ((vectors * inverse[:, None]) @ vectors.transpose(1, 2)).to(kernel.dtype)


def _space_diagonal(rows: Axis, columns: Axis, mask: Tensor) -> Tensor:
    """H×W: the space kernel of each pixel with itself, as the grid gives it."""
    whole = torch.einsum("a,b->ab", rows.diagonal.flatten(), columns.diagonal.flatten())
    return whole[: mask.shape[1], : mask.shape[2]].to(mask.device)


def _appearance_diagonal(factors: Factors) -> Tensor:
    """B×H×W: the appearance kernel of each pixel with itself, as the landmarks give it."""
    batch, height, width = factors.delta.shape
    diagonal = factors.delta.new_empty(batch, 1, height, width)
    for tile in _tiles(diagonal, factors):
        kernel = _kernel(factors, tile)
        own = ((kernel @ factors.metric[:, None, None]) * kernel).sum(4, keepdim=True).transpose(3, 4)
        part = diagonal[:, :, tile.rows]
        part.copy_(_to_pixels(own, factors.cell_y, factors.cell_x)[:, :, : part.shape[2], :width])
    return diagonal[:, 0]
