"""The affinity as landmark appearances × a coarse grid in space: filtering in a few dense matrix products.

A ≈ Σ_kl W_kl diag(φ_k) H B Hᵀ diag(φ_l) + diag(δ), with φ_k(i) the appearance kernel of pixel i and landmark k, W the
inverse of that kernel among the landmarks, H B Hᵀ the space kernel, and δ what makes A_ii = 1; see README.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import e, log2, prod, sqrt

import torch
from torch import Tensor
from torch.nn import functional

from allweather.ncut.landmarks import choose_landmarks, gaussian
from allweather.ncut.space import Axis, axis

_TILE = 1 << 19  # the least numbers of a tile's widest intermediate, so that it stays in the caches
_EIGENVALUES = 1e-5  # of the landmarks' kernel relative to the largest; below it there is only rounding
_FAR = -1e4  # an exponent of 2 that no score outweighs
_LEAST = -100.0  # smaller exponents of 2 would only reach numbers that processors are slow at


class Scratch:
    """Memory that the tiles of one pass share: fresh pages for each tile would cost more than the sums on them.

    Args:
        like: gives device and type.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._blocks: dict[str, Tensor] = {}

    def take(self, name: str, shape: Sequence[int], kind: torch.dtype | None = None) -> Tensor:
        """Uninitialised memory; what the same name gave before is lost."""
        size = prod(shape)
        block = self._blocks.get(name)
        if block is None or len(block) < size:
            block = self._blocks[name] = self._like.new_empty(size, dtype=kind)
        return block[:size].view(shape)

    def cast(self, name: str, values: Tensor, kind: torch.dtype | None = None) -> Tensor:
        """`values` in another type; themselves where they have it."""
        kind = kind or self._like.dtype
        return values if values.dtype == kind else self.take(name, values.shape, kind).copy_(values)


@dataclass(frozen=True)
class _Tile:
    """Some rows of cells, [first, last), and the pixel rows they cover."""

    first: int
    last: int
    rows: slice


@dataclass(frozen=True)
class Factors:
    """All that depends on the images alone.

    Attributes:
        points: B×R×Q×P×(D+2), the pixels of each of R×Q cells as (2x, −|x|², 1), x the appearance in units where
            the kernel is 2^(−|x−l|²); a pixel that does not count has `_FAR` for −|x|².
        landmarks: B×(D+2)×r, the landmarks as (l, 1, −|l|²).
        metric: B×r×r, W.
        blur_y, blur_x: (R+1)×(R+1) and (Q+1)×(Q+1), B of each axis.
        corners: 4×P, the share of each pixel of a cell that goes to the cell's four nodes; its type is that of the
            two large products, whose sums are float32 at least.
        delta: B×H×W, δ; 0 where a pixel does not count.
        total: B, the sum of d = A·1.
        one: B×(R+1)×(Q+1)×1×r, the vector 1 at the nodes, blurred.
        cell_y, cell_x: pixels per cell.
    """

    points: Tensor
    landmarks: Tensor
    metric: Tensor
    blur_y: Tensor
    blur_x: Tensor
    corners: Tensor
    delta: Tensor
    total: Tensor
    one: Tensor
    cell_y: int
    cell_x: int

    @property
    def rank(self) -> int:
        """r, the number of landmarks."""
        return self.landmarks.shape[2]

    def cells(self, tile: _Tile) -> tuple[int, int, int, int]:
        """Rows of cells, pixel rows of each, cells in a row, pixel columns of each."""
        return tile.last - tile.first, self.cell_y, self.points.shape[2], self.cell_x


def factorise(
    appearance: Tensor, mask: Tensor, sigma_xy: float, ranks: Sequence[int], error: float, products: torch.dtype
) -> Factors:
    """The factors of images whose `appearance` B×D×H×W (divided by its σ) counts where `mask` B×H×W is true."""
    batch, _, height, width = appearance.shape
    rows, columns = axis(height, sigma_xy), axis(width, sigma_xy)
    flat, valid = appearance.flatten(2).transpose(1, 2), mask.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)  # |x|² and |l|² stay small beside their difference
    landmarks = choose_landmarks(flat, valid, ranks, error)
    root = _inverse_root(gaussian(landmarks, landmarks))
    unit = sqrt(log2(e) / 2)
    pixels = _augment(flat * unit, valid).transpose(1, 2).unflatten(2, (height, width))
    corners = torch.einsum("ap,bq->abpq", rows.weights, columns.weights).flatten(2).flatten(0, 1)
    factors = Factors(
        points=_cut(pixels, rows, columns),
        landmarks=_augment_landmarks(landmarks * unit),
        metric=root @ root.mT,
        blur_y=rows.blur.to(appearance),
        blur_x=columns.blur.to(appearance),
        corners=corners.to(appearance.device, products),
        delta=torch.zeros_like(appearance[:, 0]),
        total=appearance.new_zeros(batch),
        one=appearance.new_zeros(batch, rows.cells + 1, columns.cells + 1, 1, landmarks.shape[1]),
        cell_y=rows.cell,
        cell_x=columns.cell,
    )
    own = _appearance_diagonal(factors, root).mul_(_space_diagonal(rows, columns, mask).to(appearance))
    factors.delta.copy_(own.neg_().add_(1).mul_(mask))
    one = _splat(mask[:, None].to(appearance.dtype), factors)
    factors.one.copy_(_blur(one, factors))
    factors.total.copy_((one * factors.one).flatten(1).sum(1) + factors.delta.sum((1, 2)))
    return factors


def filter_scores(scores: Tensor, factors: Factors) -> Tensor:
    """A·S for scores B×C×H×W, in their type."""
    return _filtered(scores, _blur(_splat(scores, factors), factors), factors)


def terms_and_nodes(scores: Tensor, factors: Factors) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1 − S_pᵀAS_p / dᵀS_p per image and class, B×C, and what `gradient` needs.

    That is the blurred scores at the nodes, the ratio S_pᵀAS_p / dᵀS_p and 1 / dᵀS_p. A class without mass,
    |dᵀS_p| ≤ 1e-12·Σd, has the term and the derivative 0.
    """
    nodes = _splat(scores, factors)
    mass = (nodes @ factors.one.transpose(3, 4)).sum((1, 2, 4))
    blurred = _blur(nodes, factors)
    quadratic = nodes.mul_(blurred).sum((1, 2, 4))
    scratch = Scratch(factors.delta)
    for tile in _tiles(scores, factors):
        part = scratch.cast("part", scores[:, :, tile.rows])
        weighted = scratch.take("weighted", part.shape)
        torch.mul(part, factors.delta[:, None, tile.rows], out=weighted)
        mass += weighted.sum((2, 3))
        quadratic += weighted.mul_(part).sum((2, 3))
    massless = mass.abs() <= 1e-12 * factors.total[:, None]
    inverse = torch.where(massless, 0, 1 / torch.where(massless, 1, mass))
    ratio = quadratic * inverse
    return torch.where(massless, 0, 1 - ratio), blurred, ratio, inverse


def gradient(scores: Tensor, factors: Factors, nodes: Tensor, ratio: Tensor, inverse: Tensor) -> Tensor:
    """The derivative of the terms by the scores, (ratio·d − 2·A S)·inverse = −2·inverse·A(S − ratio/2), B×C×H×W.

    Args:
        nodes, ratio, inverse: as `terms_and_nodes` gave them, `inverse` times the derivative by the terms.
    """
    return _filtered(scores, nodes, factors, (-2 * inverse, ratio * inverse))


def _filtered(scores: Tensor, nodes: Tensor, factors: Factors, affine: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """A·S, or A·(a·S + b) for `affine` (a, b), each B×C, from the blurred nodes of S; in the scores' type."""
    filtered = torch.empty_like(scores)
    scratch = Scratch(factors.delta)
    for tile in _tiles(scores, factors):
        part = scratch.cast("part", scores[:, :, tile.rows])
        near = nodes[:, tile.first : tile.last + 1]
        if affine:
            scale, shift = (number[..., None, None] for number in affine)
            part = torch.addcmul(shift, part, scale, out=scratch.take("affine", part.shape))
            scale, shift = (number[:, None, None] for number in (scale[..., 0], shift[..., 0]))
            near = (near * scale).addcmul_(factors.one[:, tile.first : tile.last + 1], shift)
        values = _slice(near, factors, tile, part.shape, scratch)
        filtered[:, :, tile.rows] = values.addcmul_(factors.delta[:, None, tile.rows], part)
    return filtered


def _tiles(scores: Tensor, factors: Factors) -> Iterator[_Tile]:
    """Rows of cells whose widest intermediate has `_TILE` numbers, or an eighth of the scores' bytes if more."""
    batch, rows, columns, pixels, _ = factors.points.shape
    each = batch * columns * pixels * max(4 * scores.shape[1], factors.rank)
    least = scores.numel() * scores.element_size() // (8 * factors.delta.element_size())
    step = max(1, max(_TILE, least) // each)
    for first in range(0, rows, step):
        last = min(rows, first + step)
        yield _Tile(first, last, slice(first * factors.cell_y, min(last * factors.cell_y, scores.shape[2])))


def _kernel(factors: Factors, tile: _Tile, scratch: Scratch) -> Tensor:
    """φ of the tile's pixels, (B·T·Q)×P×r, made anew each time: cheaper than reading it from memory."""
    points = factors.points[:, tile.first : tile.last]
    batch, rows, columns, pixels, channels = points.shape
    landmarks = factors.landmarks[:, None].expand(-1, rows * columns, -1, -1)
    exponent = scratch.take("exponent", (batch * rows * columns, pixels, factors.rank))
    torch.bmm(points.reshape(-1, pixels, channels), landmarks.reshape(-1, channels, factors.rank), out=exponent)
    return scratch.cast("kernel", exponent.clamp_min_(_LEAST).exp2_(), factors.corners.dtype)


def _splat(scores: Tensor, factors: Factors) -> Tensor:
    """Hᵀ(φ ⊙ S): the scores' moments at the nodes, B×(R+1)×(Q+1)×C×r."""
    batch, rows, columns, pixels, _ = factors.points.shape
    classes, kind = scores.shape[1], factors.corners.dtype
    nodes = factors.delta.new_zeros(batch, rows + 1, columns + 1, classes, factors.rank)
    scratch = Scratch(factors.delta)
    for tile in _tiles(scores, factors):
        cells = _to_cells(scores[:, :, tile.rows], factors, tile, scratch)  # (B·T·Q)×C×P
        weighted = scratch.take("weighted", (len(cells), 4, classes, pixels), kind)
        torch.mul(cells[:, None], factors.corners[:, None], out=weighted)
        moments = scratch.take("moments", (len(cells), 4 * classes, factors.rank), kind)
        torch.bmm(weighted.flatten(1, 2), _kernel(factors, tile, scratch), out=moments)
        by_corner = moments.view(batch, -1, columns, 4, classes, factors.rank)
        for corner in range(4):
            down, right = divmod(corner, 2)
            target = nodes[:, tile.first + down : tile.last + down, right : columns + right]
            target += by_corner[:, :, :, corner]
    return nodes


def _blur(nodes: Tensor, factors: Factors) -> Tensor:
    """B and W applied at the nodes."""
    blurred = (factors.blur_y @ nodes.flatten(2)).view(nodes.shape)
    blurred = (factors.blur_x @ blurred.flatten(3)).view(nodes.shape)
    return (blurred.flatten(1, 3) @ factors.metric).view(nodes.shape)


def _slice(near: Tensor, factors: Factors, tile: _Tile, shape: torch.Size, scratch: Scratch) -> Tensor:
    """φ ⊙ (H · near), summed over the landmarks, at the tile's pixels: `shape` B×C×h×W; `near`, its rows of nodes."""
    batch, _, columns, pixels, _ = factors.points.shape
    rows, classes, kind = tile.last - tile.first, shape[1], factors.corners.dtype
    around = scratch.take("around", (batch, rows, columns, 4, classes, factors.rank), kind)
    for corner in range(4):
        down, right = divmod(corner, 2)
        around[:, :, :, corner] = near[:, down : rows + down, right : columns + right]
    values = scratch.take("values", (batch * rows * columns, 4 * classes, pixels), kind)
    torch.bmm(around.flatten(0, 2).flatten(1, 2), _kernel(factors, tile, scratch).transpose(1, 2), out=values)
    upper, lower = values.view(-1, 2, 2 * classes, pixels).unbind(1)
    sides = torch.lerp(upper, lower, factors.corners[2:].sum(0), out=scratch.take("sides", upper.shape, kind))
    first, second = sides.view(-1, 2, classes, pixels).unbind(1)
    cells = torch.lerp(first, second, factors.corners[1::2].sum(0), out=scratch.take("cells", first.shape, kind))
    return _to_pixels(cells, factors, tile, shape, scratch)


def _to_cells(images: Tensor, factors: Factors, tile: _Tile, scratch: Scratch) -> Tensor:
    """The tile's pixels B×K×h×W cut into cells: (B·T·Q)×K×P; what the last cells lack is 0, which no score weighs."""
    kind, size = factors.corners.dtype, factors.cells(tile)
    batch, channels, height, width = images.shape
    whole = scratch.take("image", (batch, channels, size[0] * size[1], size[2] * size[3]), kind)
    whole[:, :, height:] = 0
    whole[:, :, :, width:] = 0
    whole[:, :, :height, :width] = images
    cells = scratch.take("cells", (batch, size[0], size[2], channels, size[1], size[3]), kind)
    cells.copy_(whole.view(batch, channels, *size).permute(0, 2, 4, 1, 3, 5))
    return cells.flatten(4, 5).flatten(0, 2)


def _to_pixels(cells: Tensor, factors: Factors, tile: _Tile, shape: torch.Size, scratch: Scratch) -> Tensor:
    """(B·T·Q)×K×P back to pixels B×K×h×W = `shape`."""
    size = factors.cells(tile)
    whole = scratch.take("image", (shape[0], shape[1], *size))
    whole.copy_(cells.view(shape[0], size[0], size[2], shape[1], size[1], size[3]).permute(0, 3, 1, 4, 2, 5))
    return whole.flatten(4, 5).flatten(2, 3)[:, :, : shape[2], : shape[3]]


def _cut(images: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """B×K×H×W cut into cells B×R×Q×P×K, zeros where the last ones lack pixels."""
    below, right = rows.cell * rows.cells - images.shape[2], columns.cell * columns.cells - images.shape[3]
    cells = functional.pad(images, (0, right, 0, below)).unflatten(3, (-1, columns.cell)).unflatten(2, (-1, rows.cell))
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)


def _augment(points: Tensor, valid: Tensor) -> Tensor:
    batch, pixels, channels = points.shape
    augmented = points.new_ones(batch, pixels, channels + 2)
    torch.mul(points, 2, out=augmented[..., :channels])
    augmented[..., channels] = torch.where(valid, -points.square().sum(2), _FAR)
    return augmented


def _augment_landmarks(landmarks: Tensor) -> Tensor:
    square = -landmarks.square().sum(2, keepdim=True)
    return torch.cat([landmarks, torch.ones_like(square), square], 2).transpose(1, 2).contiguous()


def _inverse_root(kernel: Tensor) -> Tensor:
    """V with V Vᵀ the pseudo-inverse of B×r×r `kernel`."""
    values, vectors = torch.linalg.eigh(kernel.double())
    kept = values > _EIGENVALUES * values[:, -1:]
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1), 0).sqrt()
    return (vectors * inverse[:, None]).to(kernel.dtype)


def _space_diagonal(rows: Axis, columns: Axis, mask: Tensor) -> Tensor:
    """H×W: the space kernel of each pixel with itself, as the grid gives it."""
    whole = torch.einsum("a,b->ab", rows.diagonal.flatten(), columns.diagonal.flatten())
    return whole[: mask.shape[1], : mask.shape[2]].to(mask.device)


def _appearance_diagonal(factors: Factors, root: Tensor) -> Tensor:
    """B×H×W: the appearance kernel of each pixel with itself, as the landmarks give it; `root` · rootᵀ = W."""
    batch, height, width = factors.delta.shape
    diagonal = factors.delta.new_empty(batch, 1, height, width)
    scratch = Scratch(factors.delta)
    for tile in _tiles(diagonal, factors):
        kernel = _kernel(factors, tile, scratch).unflatten(0, (batch, -1))
        product = scratch.take("product", kernel.shape, kernel.dtype)
        torch.matmul(kernel, root[:, None].to(kernel.dtype), out=product)
        own = product.mul_(product).sum(3).flatten(0, 1)[:, None]  # (B·T·Q)×1×P
        part = diagonal[:, :, tile.rows]
        part.copy_(_to_pixels(own, factors, tile, part.shape, scratch))
    return diagonal[:, 0]
