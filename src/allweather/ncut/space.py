"""The space kernel of one image axis on a coarse grid: bilinear interpolation and the blur that fits it best."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import torch
from torch import Tensor

CELLS = (0.27, 0.33)  # bounds of the cell size in units of σ; the 1-D kernel is then within 0.5 % (Frobenius)


@dataclass(frozen=True)
class Axis:
    """One axis of n pixels cut into `cells` cells of `cell` pixels, with a node at each cell border.

    Attributes:
        weights: 2×cell, the share of a pixel at each offset within its cell that goes to the cell's two nodes.
        blur: (cells+1)×(cells+1), symmetric positive semi-definite.
    """

    cell: int
    cells: int
    weights: Tensor
    blur: Tensor

    @property
    def diagonal(self) -> Tensor:
        """cells×cell: the approximated kernel of each pixel with itself."""
        pairs = torch.stack(  # cells×2×2: the blur between the two nodes of each cell
            [
                torch.stack([self.blur.diagonal()[:-1], self.blur.diagonal(1)], -1),
                torch.stack([self.blur.diagonal(-1), self.blur.diagonal()[1:]], -1),
            ],
            -2,
        )
        return torch.einsum("ap,qab,bp->qp", self.weights, pairs, self.weights)


@lru_cache(maxsize=32)
def axis(pixels: int, sigma: float) -> Axis:
    """The factors of the Gaussian exp(−(x−y)²/2σ²) over 0 ≤ x, y < `pixels`, in float64 on the CPU.

    The blur is B = H⁺ K (H⁺)ᵀ, which minimises ‖H B Hᵀ − K‖ in the Frobenius norm for the interpolation H.
    """
    least, most = (max(1, round(bound * sigma)) for bound in CELLS)
    cell = min(range(most, least - 1, -1), key=lambda size: ceil(pixels / size) * size)  # the fewest pixels beyond
    cells = ceil(pixels / cell)
    offsets = (torch.arange(cell, dtype=torch.float64) + 0.5) / cell
    weights = torch.stack([1 - offsets, offsets])
    positions = torch.arange(pixels)
    interpolation = torch.zeros(pixels, cells + 1, dtype=torch.float64)
    for side in (0, 1):
        interpolation[positions, positions // cell + side] = weights[side, positions % cell]
    distance = positions.double()[:, None] - positions.double()
    kernel = torch.exp(-distance.square() / (2 * sigma**2))
    inverse = torch.linalg.pinv(interpolation)
    blur = inverse @ kernel @ inverse.T
    return Axis(cell, cells, weights, (blur + blur.T) / 2)
