"""The affinity as appearances × smooth modes in space: filtering in a few dense matrix products.

A ≈ Σ_k diag(ψ_k) H M Mᵀ Hᵀ diag(ψ_k) + diag(δ), with ψ the factor of the appearance kernel, H M Mᵀ Hᵀ
the space kernel, and δ what makes A_ii = 1; see README.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from allweather.ncut.appearance import fill
from allweather.ncut.cells import Grid, Scratch, Tile
from allweather.ncut.landmarks import Columns
from allweather.ncut.space import Axis, axis


@dataclass(frozen=True, eq=False)
class Factors:
    """All that depends on the images alone.

    Attributes:
        appearance: R×B×Q×P×r, ψ of the P pixels of each of R×Q cells, 0 where a pixel does not count; its type is that
            of the large products, whose sums are float32 at least.
        across: 2·kx×3·Q, from the three moments of a row's cells to its modes: kx of the first and second moment, and
            kx of the third.
        down: ky×2·R, from a column's moments to its modes.
        lines: 2×P, the linear functions of a cell along x and along y.
        delta: B×H×W, δ; 0 where a pixel does not count.
        total: B, the sum of d = A·1.
        one: B×ky×kx×1×r, the vector 1 in modes.
        cell_y, cell_x: pixels per cell.
    """

    appearance: Tensor
    across: Tensor
    down: Tensor
    lines: Tensor
    delta: Tensor
    total: Tensor
    one: Tensor
    cell_y: int
    cell_x: int

    @property
    def rank(self) -> int:
        """r, the columns of ψ."""
        return self.appearance.shape[4]

    @property
    def grid(self) -> Grid:
        rows, _, columns = self.appearance.shape[:3]
        return Grid(rows, columns, self.cell_y, self.cell_x, *self.delta.shape[1:])

    def tiles(self, scores: Tensor) -> list[Tile]:
        """Tiles of 2²¹ numbers in their widest intermediate, or an eighth of the scores' bytes if more."""
        batch, classes = scores.shape[:2]
        least = scores.numel() * scores.element_size() // (8 * self.delta.element_size())
        return self.grid.tiles(batch * max(3 * classes, self.rank), least)

    def of(self, tile: Tile) -> Tensor:
        """ψ of the tile's pixels, (T·B·Q)×P×r."""
        return self.appearance[tile.first : tile.last].flatten(0, 2)


def factorise(appearance: Tensor, mask: Tensor, sigma_xy: float, columns: Columns) -> Factors:
    """The factors of images whose `appearance` B×D×H×W (divided by its σ) counts where `mask` B×H×W is true."""
    batch, _, height, width = appearance.shape
    y, x = axis(height, sigma_xy), axis(width, sigma_xy)
    products = columns.root.dtype
    lines = torch.stack([x.offsets.expand(y.cell, -1), y.offsets[:, None].expand(-1, x.cell)]).flatten(1)
    factors = Factors(
        appearance=appearance.new_empty(
            (y.cells, batch, x.cells, y.cell * x.cell, columns.root.shape[2]), dtype=products
        ),
        across=_across(x).to(appearance.device, products),
        down=y.modes.flatten(1).to(appearance),
        lines=lines.to(appearance.device, products),
        delta=torch.empty_like(appearance[:, 0]),
        total=appearance.new_empty(batch),
        one=appearance.new_empty(batch, len(y.modes), len(x.modes), 1, columns.root.shape[2]),
        cell_y=y.cell,
        cell_x=x.cell,
    )
    own = fill(factors.appearance, factors.grid, appearance, mask, columns)
    factors.delta.copy_(own.mul_(_space_diagonal(y, x, height, width).to(appearance)).neg_().add_(1).mul_(mask))
    factors.one.copy_(_splat(mask[:, None].to(appearance.dtype), factors))
    factors.total.copy_(factors.one.square().sum((1, 2, 3, 4)) + factors.delta.sum((1, 2)))
    return factors


def filter_scores(scores: Tensor, factors: Factors) -> Tensor:
    """A·S for scores B×C×H×W, in their type."""
    return _filtered(scores, _splat(scores, factors), factors)


def terms_and_modes(scores: Tensor, factors: Factors) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1 − S_pᵀAS_p / dᵀS_p per image and class, B×C, and what `gradient` needs.

    That is the scores in modes, the ratio S_pᵀAS_p / dᵀS_p and 1 / dᵀS_p. A class without mass,
    |dᵀS_p| ≤ 1e-12·Σd, has the term and the derivative 0.
    """
    modes = _splat(scores, factors)
    mass = (modes * factors.one).sum((1, 2, 4))
    quadratic = modes.square().sum((1, 2, 4))
    scratch = Scratch(factors.delta)
    for tile in reversed(factors.tiles(scores)):
        part = scratch.cast("part", scores[:, :, tile.rows])
        weighted = scratch.take("weighted", part.shape)
        torch.mul(part, factors.delta[:, None, tile.rows], out=weighted)
        mass += weighted.sum((2, 3))
        quadratic += weighted.mul_(part).sum((2, 3))
    massless = mass.abs() <= 1e-12 * factors.total[:, None]
    inverse = torch.where(massless, 0, 1 / torch.where(massless, 1, mass))
    ratio = quadratic * inverse
    return torch.where(massless, 0, 1 - ratio), modes, ratio, inverse


def gradient(scores: Tensor, factors: Factors, modes: Tensor, ratio: Tensor, inverse: Tensor) -> Tensor:
    """The derivative of the terms by the scores, (ratio·d − 2·A S)·inverse = −2·inverse·A(S − ratio/2), B×C×H×W.

    Args:
        modes, ratio, inverse: as `terms_and_modes` gave them, `inverse` times the derivative by the terms.
    """
    return _filtered(scores, modes, factors, (-2 * inverse, ratio * inverse))


def _filtered(scores: Tensor, modes: Tensor, factors: Factors, affine: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """A·S, or A·(a·S + b) for `affine` (a, b), each B×C, from S in modes; in the scores' type."""
    filtered = torch.empty_like(scores)
    if affine:
        scale, shift = (number[:, None, None, :, None] for number in affine)
        modes = (modes * scale).addcmul_(factors.one, shift)
    # B×R×2·kx×C·r
    strips = (factors.down.mT @ modes.flatten(2)).view(len(modes), -1, factors.across.shape[0], modes[0, 0, 0].numel())
    scratch, halves = Scratch(factors.delta), Scratch(factors.appearance)
    for tile in reversed(factors.tiles(scores)):
        part = scratch.cast("part", scores[:, :, tile.rows])
        if affine:
            scale, shift = (number[..., None, None] for number in affine)
            part = torch.mul(part, scale, out=scratch.take("affine", part.shape)).add_(shift)
        cells = _slice(strips[:, tile.first : tile.last], factors, tile, halves)
        pixels = tile.to_pixels(cells, part.shape, halves)
        target, delta = filtered[:, :, tile.rows], factors.delta[:, None, tile.rows]
        if target.dtype == part.dtype:
            target.copy_(pixels).addcmul_(delta, part)
        else:
            target.copy_(scratch.cast("sum", pixels).addcmul_(delta, part))
    return filtered


def _splat(scores: Tensor, factors: Factors) -> Tensor:
    """Mᵀ Hᵀ(ψ ⊙ S): the scores in modes, B×ky×kx×C×r."""
    _, batch, columns, pixels, rank = factors.appearance.shape
    classes, width = scores.shape[1], factors.across.shape[0]
    strips = factors.delta.new_empty(batch, factors.grid.rows, width, classes * rank)
    scratch = Scratch(factors.appearance)
    for tile in factors.tiles(scores):
        cells = tile.count * batch * columns
        lifted = scratch.take("lifted", (cells, 3, classes, pixels))
        tile.to_cells(scores[:, :, tile.rows], scratch, lifted[:, 0])
        torch.mul(lifted[:, :1], factors.lines[:, None], out=lifted[:, 1:])
        moments = scratch.take("moments", (cells, 3 * classes, rank))
        torch.bmm(lifted.flatten(1, 2), factors.of(tile), out=moments)
        by_row = moments.view(tile.count * batch, 3 * columns, classes * rank)
        modes = scratch.take("modes", (len(by_row), width, classes * rank))
        torch.bmm(factors.across.expand(len(by_row), -1, -1), by_row, out=modes)
        strips[:, tile.first : tile.last] = modes.unflatten(0, (tile.count, batch)).transpose(0, 1)
    by_column = strips.view(batch, factors.down.shape[1], -1)
    return (factors.down @ by_column).view(batch, len(factors.down), width // 2, classes, rank)


def _slice(strips: Tensor, factors: Factors, tile: Tile, scratch: Scratch) -> Tensor:
    """ψ ⊙ (H M · modes), summed over the columns of ψ, at the tile's pixels: (T·B·Q)×C×P."""
    _, batch, columns, pixels, rank = factors.appearance.shape
    width, numbers = strips.shape[2:]
    classes, rows = numbers // rank, tile.count * batch
    by_row = scratch.take("by_row", (tile.count, batch, width, numbers)).copy_(strips.transpose(0, 1)).flatten(0, 1)
    around = scratch.take("around", (rows, 3 * columns, numbers))
    torch.bmm(factors.across.mT.expand(rows, -1, -1), by_row, out=around)
    lines = scratch.take("lines", (rows * columns, 3, classes, pixels))
    torch.bmm(around.view(rows * columns, 3 * classes, rank), factors.of(tile).mT, out=lines.flatten(1, 2))
    lines[:, 1:].mul_(factors.lines[:, None])
    return lines[:, 0].add_(lines[:, 1].add_(lines[:, 2]))  # the small ones first: one rounding less


def _across(x: Axis) -> Tensor:
    """2·kx×3·Q: modes of a row of cells from their moments of 1, x and y; the modes of the moment of y are apart."""
    modes = x.modes.new_zeros(2, len(x.modes), x.cells, 3)
    modes[0, :, :, :2] = x.modes
    modes[1, :, :, 2] = x.modes[:, :, 0]
    return modes.flatten(2).flatten(0, 1)


def _space_diagonal(y: Axis, x: Axis, height: int, width: int) -> Tensor:
    """H×W: the space kernel of each pixel with itself, as the modes give it, without moments of x·y."""
    pairs = y.modes.new_tensor([[1, 2, 1], [2, 2, 0], [1, 0, 0]])
    return y.diagonal[:, :height].mT @ pairs @ x.diagonal[:, :width]
