"""The affinity as landmark appearances × a coarse grid in space: filtering in a few dense matrix products.

A ≈ Σ_k diag(ψ_k) H B Hᵀ diag(ψ_k) + diag(δ), with ψ the Nyström factor of the appearance kernel, H B Hᵀ
the space kernel, and δ what makes A_ii = 1; see README.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, e, log2, prod, sqrt

import torch
from torch import Tensor

from allweather.ncut.landmarks import choose_landmarks, gaussian
from allweather.ncut.space import Axis, axis

_TILE = 1 << 21  # the least numbers of a tile's widest intermediate: fewer would cost more in starting operations
# eigenvalues of the landmarks' kernel relative to the largest: above the first all are kept, below the second, where
# there is little but rounding, none; those between fill ψ up to whole blocks of columns
_EIGENVALUES = {torch.bfloat16: (4e-3, 1e-3), torch.float32: (1e-5, 1e-5), torch.float64: (1e-5, 1e-5)}
_BLOCK = 16  # columns; a product with 56 takes as long as one with 64
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

    @property
    def near(self) -> slice:
        """The rows of nodes around it."""
        return slice(self.first, self.last + 1)


@dataclass(frozen=True)
class Factors:
    """All that depends on the images alone.

    Attributes:
        appearance: R×B×Q×P×r, ψ of the P pixels of each of R×Q cells, 0 where a pixel does not count; its type is that
            of the two large products, whose sums are float32 at least.
        blur_y, blur_x: (R+1)×(R+1) and (Q+1)×(Q+1), B of each axis.
        corners: 4×P, the share of each pixel of a cell that goes to the cell's four nodes.
        delta: B×H×W, δ; 0 where a pixel does not count.
        total: B, the sum of d = A·1.
        one: (R+1)×B×(Q+1)×1×r, the vector 1 at the nodes, blurred.
        cell_y, cell_x: pixels per cell.
    """

    appearance: Tensor
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
        """r, the columns of ψ."""
        return self.appearance.shape[4]

    def cells(self, tile: _Tile) -> tuple[int, int, int, int]:
        """Rows of cells, pixel rows of each, cells in a row, pixel columns of each."""
        return tile.last - tile.first, self.cell_y, self.appearance.shape[2], self.cell_x

    def of(self, tile: _Tile) -> Tensor:
        """ψ of the tile's pixels, (T·B·Q)×P×r."""
        return self.appearance[tile.first : tile.last].flatten(0, 2)


def factorise(
    appearance: Tensor, mask: Tensor, sigma_xy: float, ranks: Sequence[int], error: float, products: torch.dtype
) -> Factors:
    """The factors of images whose `appearance` B×D×H×W (divided by its σ) counts where `mask` B×H×W is true."""
    batch, _, height, width = appearance.shape
    rows, columns = axis(height, sigma_xy), axis(width, sigma_xy)
    flat = appearance.flatten(2).transpose(1, 2)
    flat = flat - flat.mean(1, keepdim=True)  # |x|² and |l|² stay small beside their difference
    landmarks = choose_landmarks(flat, mask.flatten(1), width, ranks, error)
    root = inverse_root(gaussian(landmarks, landmarks), *_EIGENVALUES[products]).to(products)
    shape = rows.cells, batch, columns.cells, rows.cell * columns.cell, root.shape[2]
    corners = torch.einsum("ap,bq->abpq", rows.weights, columns.weights).flatten(2).flatten(0, 1)
    factors = Factors(
        appearance=appearance.new_empty(shape, dtype=products),
        blur_y=rows.blur.to(appearance),
        blur_x=columns.blur.to(appearance),
        corners=corners.to(appearance.device, products),
        delta=torch.empty_like(appearance[:, 0]),
        total=appearance.new_empty(batch),
        one=appearance.new_empty(rows.cells + 1, batch, columns.cells + 1, 1, shape[4]),
        cell_y=rows.cell,
        cell_x=columns.cell,
    )
    pixels = _augment(flat).transpose(1, 2).unflatten(2, (height, width))
    own = _fill_appearance(factors, pixels, mask, landmarks, root)
    factors.delta.copy_(own.mul_(_space_diagonal(rows, columns, mask).to(appearance)).neg_().add_(1).mul_(mask))
    one = _splat(mask[:, None].to(appearance.dtype), factors)
    factors.one.copy_(_blur(one, factors))
    factors.total.copy_((one * factors.one).sum((0, 2, 3, 4)) + factors.delta.sum((1, 2)))
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
    mass = (nodes @ factors.one.mT).sum((0, 2, 4))
    blurred = _blur(nodes, factors)
    quadratic = nodes.mul_(blurred).sum((0, 2, 4))
    scratch = Scratch(factors.delta)
    for tile in reversed(_tiles(scores, factors)):
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
    for tile in reversed(_tiles(scores, factors)):
        part, near = scratch.cast("part", scores[:, :, tile.rows]), nodes[tile.near]
        if affine:
            scale, shift = (number[..., None, None] for number in affine)
            part = torch.mul(part, scale, out=scratch.take("affine", part.shape)).add_(shift)
            scale, shift = (number[:, None, :, :, 0] for number in (scale, shift))
            near = (near * scale).addcmul_(factors.one[tile.near], shift)
        cells, delta = _slice(near, factors, tile, scratch), factors.delta[:, None, tile.rows]
        target = filtered[:, :, tile.rows]
        if target.dtype == part.dtype and _fits(target, factors, tile):
            _cut(target, factors, tile).copy_(cells)
            target.addcmul_(delta, part)
        else:
            target.copy_(_to_pixels(cells, factors, tile, part.shape, scratch).addcmul_(delta, part))
    return filtered


def _tiles(scores: Tensor, factors: Factors) -> list[_Tile]:
    """Rows of cells whose widest intermediate has `_TILE` numbers, or an eighth of the scores' bytes if more.

    A pass that follows another goes through them in reverse: the last ones are still in the cache.
    """
    rows, batch, columns, pixels, _ = factors.appearance.shape
    each = batch * columns * pixels * max(4 * scores.shape[1], factors.rank)
    least = scores.numel() * scores.element_size() // (8 * factors.delta.element_size())
    step = max(1, max(_TILE, least) // each)
    bounds = [(first, min(rows, first + step)) for first in range(0, rows, step)]
    height, cell = scores.shape[2], factors.cell_y
    return [_Tile(first, last, slice(first * cell, min(last * cell, height))) for first, last in bounds]


def _splat(scores: Tensor, factors: Factors) -> Tensor:
    """Hᵀ(ψ ⊙ S): the scores' moments at the nodes, (R+1)×B×(Q+1)×C×r."""
    rows, batch, columns, pixels, rank = factors.appearance.shape
    classes, kind = scores.shape[1], factors.corners.dtype
    nodes = factors.delta.new_zeros(rows + 1, batch, columns + 1, classes, rank)
    scratch = Scratch(factors.delta)
    for tile in _tiles(scores, factors):
        cells = _to_cells(scores[:, :, tile.rows], factors, tile, scratch, kind)  # (T·B·Q)×C×P
        weighted = scratch.take("weighted", (len(cells), 4, classes, pixels), kind)
        torch.mul(cells[:, None], factors.corners[:, None], out=weighted)
        moments = scratch.take("moments", (len(cells), 4 * classes, rank), kind)
        torch.bmm(weighted.flatten(1, 2), factors.of(tile), out=moments)
        by_corner = moments.view(-1, batch, columns, 4, classes, rank)
        for corner in range(4):
            down, right = divmod(corner, 2)
            nodes[tile.first + down : tile.last + down, :, right : columns + right] += by_corner[:, :, :, corner]
    return nodes


def _blur(nodes: Tensor, factors: Factors) -> Tensor:
    """B applied at the nodes."""
    blurred = (factors.blur_y @ nodes.flatten(1)).view(nodes.shape)
    return (factors.blur_x @ blurred.flatten(3)).view(nodes.shape)


def _slice(near: Tensor, factors: Factors, tile: _Tile, scratch: Scratch) -> Tensor:
    """ψ ⊙ (H · near), summed over the landmarks, at the tile's pixels: T×B×Q×C×py×px; `near`, its rows of nodes."""
    _, batch, columns, pixels, rank = factors.appearance.shape
    rows, classes, kind = tile.last - tile.first, near.shape[3], factors.corners.dtype
    around = scratch.take("around", (rows, batch, columns, 4, classes, rank), kind)
    for corner in range(4):
        down, right = divmod(corner, 2)
        around[:, :, :, corner] = near[down : rows + down, :, right : columns + right]
    values = scratch.take("values", (rows * batch * columns, 4 * classes, pixels), kind)
    torch.bmm(around.flatten(0, 2).flatten(1, 2), factors.of(tile).mT, out=values)
    upper, lower = values.view(-1, 2, 2 * classes, pixels).unbind(1)
    sides = torch.lerp(upper, lower, factors.corners[2:].sum(0), out=scratch.take("sides", upper.shape, kind))
    first, second = sides.view(-1, 2, classes, pixels).unbind(1)
    cells = torch.lerp(first, second, factors.corners[1::2].sum(0), out=scratch.take("cells", first.shape, kind))
    return cells.view(rows, batch, columns, classes, factors.cell_y, factors.cell_x)


def _fits(images: Tensor, factors: Factors, tile: _Tile) -> bool:
    """Whether the tile's pixels fill its cells."""
    rows, height, columns, width = factors.cells(tile)
    return images.shape[2:] == (rows * height, columns * width)


def _cut(images: Tensor, factors: Factors, tile: _Tile) -> Tensor:
    """Pixels B×K×(T·py)×(Q·px) seen as cells T×B×Q×K×py×px, without a copy."""
    rows, height, columns, width = factors.cells(tile)
    return images.unflatten(3, (columns, width)).unflatten(2, (rows, height)).permute(2, 0, 4, 1, 3, 5)


def _to_cells(images: Tensor, factors: Factors, tile: _Tile, scratch: Scratch, kind: torch.dtype) -> Tensor:
    """The tile's pixels B×K×h×W cut into cells: (T·B·Q)×K×P; what the last cells lack is 0, which no score weighs."""
    rows, cell_y, columns, cell_x = factors.cells(tile)
    batch, channels, height, width = images.shape
    cells = scratch.take("cells", (rows, batch, columns, channels, cell_y, cell_x), kind)
    if not _fits(images, factors, tile):
        whole = scratch.take("image", (batch, channels, rows * cell_y, columns * cell_x), kind)
        whole[:, :, height:] = 0
        whole[:, :, :, width:] = 0
        whole[:, :, :height, :width] = images
        images = whole
    return cells.copy_(_cut(images, factors, tile)).flatten(4, 5).flatten(0, 2)


def _to_pixels(cells: Tensor, factors: Factors, tile: _Tile, shape: torch.Size, scratch: Scratch) -> Tensor:
    """Cells T×B×Q×K×py×px back to pixels B×K×h×W = `shape`."""
    rows, height, columns, width = factors.cells(tile)
    whole = scratch.take("image", (shape[0], shape[1], rows * height, columns * width))
    _cut(whole, factors, tile).copy_(cells)
    return whole[:, :, : shape[2], : shape[3]]


def _fill_appearance(factors: Factors, pixels: Tensor, mask: Tensor, landmarks: Tensor, root: Tensor) -> Tensor:
    """Writes ψ = K(pixels, landmarks) · root tile by tile; returns |ψ|² per pixel, B×H×W.

    Args:
        pixels: B×(D+2)×H×W, as `_augment` makes them.
        landmarks: B×m×D.
        root: B×m×r, of `inverse_root`.
    """
    batch, height, width = factors.delta.shape
    products, everywhere = factors.appearance.dtype, bool(mask.all())
    centres = _augment_landmarks(landmarks)
    diagonal = factors.delta.new_empty(batch, 1, height, width)
    points, flags, scratch = Scratch(pixels), Scratch(pixels), Scratch(pixels)
    for tile in _tiles(diagonal, factors):
        rows, _, columns, _ = factors.cells(tile)
        cells = _to_cells(pixels[:, :, tile.rows], factors, tile, points, pixels.dtype).transpose(1, 2)
        exponent = scratch.take("exponent", (*cells.shape[:2], landmarks.shape[1]))
        torch.bmm(cells, _by_cell(centres, rows, columns), out=exponent)
        kernel = scratch.cast("kernel", exponent.clamp_min_(_LEAST).exp2_(), products)
        psi = factors.of(tile)
        torch.bmm(kernel, _by_cell(root, rows, columns), out=psi)
        if not everywhere:
            psi *= _to_cells(mask[:, None, tile.rows], factors, tile, flags, products).transpose(1, 2)
        squares = torch.mul(psi, psi, out=scratch.take("squares", psi.shape, products))
        own = squares.sum(2).view(rows, batch, columns, 1, factors.cell_y, factors.cell_x)
        part = diagonal[:, :, tile.rows]
        part.copy_(_to_pixels(own, factors, tile, part.shape, scratch))
    return diagonal[:, 0]


def _by_cell(matrices: Tensor, rows: int, columns: int) -> Tensor:
    """One matrix per image, B×m×n, repeated for every cell: (rows·B·columns)×m×n."""
    return matrices[None, :, None].expand(rows, -1, columns, -1, -1).flatten(0, 2)


_UNIT = sqrt(log2(e) / 2)  # appearances times this have the kernel 2^(−|x−l|²)


def _augment(points: Tensor) -> Tensor:
    """Points B×N×D as (2x, −|x|², 1), whose product with (l, 1, −|l|²) is −|x−l|²."""
    batch, pixels, channels = points.shape
    augmented = points.new_ones(batch, pixels, channels + 2)
    scaled = torch.mul(points, 2 * _UNIT, out=augmented[..., :channels])
    augmented[..., channels] = scaled.square().sum(2) / -4
    return augmented


def _augment_landmarks(landmarks: Tensor) -> Tensor:
    """Landmarks B×r×D as B×(D+2)×r."""
    landmarks = landmarks * _UNIT
    square = -landmarks.square().sum(2, keepdim=True)
    return torch.cat([landmarks, torch.ones_like(square), square], 2).mT.contiguous()


def inverse_root(kernel: Tensor, wanted: float, least: float) -> Tensor:
    """V, B×m×r, with V Vᵀ the pseudo-inverse of B×m×m `kernel` without its small eigenvalues.

    r is the number of those above `wanted` of the largest, in whole blocks where m allows, in the image of a batch that
    has most of them; the next ones fill the blocks, down to `least`.
    """
    values, vectors = torch.linalg.eigh(kernel.double())  # ascending
    counts = (values > wanted * values[:, -1:]).sum(1)
    rank = min(kernel.shape[1], _BLOCK * ceil(int(counts.max()) / _BLOCK))
    values, vectors = values[:, -rank:], vectors[:, :, -rank:]
    kept = values > least * values[:, -1:]
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1), 0).sqrt()
    return (vectors * inverse[:, None]).to(kernel.dtype)


def _space_diagonal(rows: Axis, columns: Axis, mask: Tensor) -> Tensor:
    """H×W: the space kernel of each pixel with itself, as the grid gives it."""
    whole = torch.einsum("a,b->ab", rows.diagonal.flatten(), columns.diagonal.flatten())
    return whole[: mask.shape[1], : mask.shape[2]].to(mask.device)
