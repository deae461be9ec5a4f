"""The space kernel of one image axis: a straight line per cell of pixels, and the smooth modes that the cells share."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, sqrt

import torch
from torch import Tensor

CELLS = (0.27, 0.33)  # bounds of the cell size in units of σ; the 1-D kernel is then within 0.5 % (Frobenius)
_MODES = 1e-5  # eigenvalues of the kernel below this share of the largest are left out
_WIDE = 8  # pixels; cells of a multiple are copied in wider units


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of n pixels cut into `cells` cells of `cell` pixels: G ≈ H M Mᵀ Hᵀ.

    H gives each pixel the constant and the linear function of its own cell, M the modes' coefficients there.

    Attributes:
        offsets: cell, the linear function, of mean 0 and mean square 1 over the cell; 0 in cells of one pixel.
        modes: k×cells×2, M.
    """

    cell: int
    cells: int
    offsets: Tensor
    modes: Tensor

    @property
    def diagonal(self) -> Tensor:
        """3×(cells·cell): what constant², constant·linear and linear² add to each pixel's kernel with itself."""
        gram = torch.einsum("kca,kcb->abc", self.modes, self.modes)
        powers = torch.stack([torch.ones_like(self.offsets), self.offsets, self.offsets.square()])
        return torch.einsum("ac,ap->acp", torch.stack([gram[0, 0], gram[0, 1], gram[1, 1]]), powers).flatten(1)


@lru_cache(maxsize=32)
def axis(pixels: int, sigma: float) -> Axis:
    """The factors of the Gaussian exp(−(x−y)²/2σ²) over 0 ≤ x, y < `pixels`, in float64 on the CPU.

    M Mᵀ is B = H⁺ G (H⁺)ᵀ, which minimises ‖H B Hᵀ − G‖ in the Frobenius norm, without its smallest eigenvalues.
    """
    cell = _cell(pixels, sigma)
    cells = ceil(pixels / cell)
    offsets = torch.arange(cell, dtype=torch.float64) - (cell - 1) / 2
    if cell > 1:
        offsets = offsets / sqrt((cell**2 - 1) / 12)
    positions = torch.arange(pixels)
    lines = torch.zeros(pixels, cells, 2, dtype=torch.float64)  # H
    lines[positions, positions // cell, 0] = 1
    lines[positions, positions // cell, 1] = offsets[positions % cell]
    lines[:, torch.bincount(positions // cell) < 2, 1] = 0  # one pixel has no slope
    whiten = torch.block_diag(*_inverse_roots(torch.einsum("pca,pcb->cab", lines, lines)))
    distance = positions.double()[:, None] - positions.double()
    kernel = torch.exp(-distance.square() / (2 * sigma**2))
    across = lines.flatten(1) @ whiten  # orthonormal columns
    values, vectors = torch.linalg.eigh(across.T @ kernel @ across)
    kept = values > _MODES * values[-1]
    modes = whiten @ (vectors[:, kept] * values[kept].sqrt())
    return Axis(cell, cells, offsets, modes.T.unflatten(1, (cells, 2)).contiguous())


def _cell(pixels: int, sigma: float) -> int:
    """The size that leaves the fewest pixels beyond the image; of equal ones a multiple of 8, then the largest."""
    least, most = (min(pixels, max(1, round(bound * sigma))) for bound in CELLS)
    return min(range(most, least - 1, -1), key=lambda size: (ceil(pixels / size) * size, size % _WIDE != 0))


def _inverse_roots(grams: Tensor) -> Tensor:
    """The pseudo-inverse square root of each of …×2×2 symmetric matrices."""
    values, vectors = torch.linalg.eigh(grams)
    inverse = torch.where(values > 1e-9, values.clamp_min(1e-9).rsqrt(), 0)
    return (vectors * inverse[..., None, :]) @ vectors.mT
