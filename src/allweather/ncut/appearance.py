"""The appearance factor ψ at every pixel: the kernel with the landmarks, tile by tile, times their root."""

from math import e, log2, sqrt

import torch
from torch import Tensor

from allweather.ncut.cells import Grid, Scratch
from allweather.ncut.landmarks import FAR, Columns

_LEAST = -100.0  # smaller exponents of 2 would only reach numbers that processors are slow at
_UNIT = sqrt(log2(e) / 2)  # appearances times this have the kernel 2^(−|x−l|²)


def fill(out: Tensor, grid: Grid, appearance: Tensor, mask: Tensor, columns: Columns) -> Tensor:
    """Writes ψ into `out` R×B×Q×P×r, 0 where `mask` B×H×W is false; returns |ψ|² per pixel, B×H×W.

    Args:
        appearance: B×D×H×W divided by its σ.
    """
    exact = torch.float64 if columns.farthest > FAR else appearance.dtype
    pixels, centres = _augment(appearance.to(exact)), _augment_landmarks(columns.landmarks.to(exact))
    everywhere, batch = bool(mask.all()), len(appearance)
    own = appearance.new_empty(batch, 1, grid.height, grid.width)
    wide, scratch, halves = Scratch(pixels), Scratch(appearance), Scratch(out)
    for tile in grid.tiles(batch * max(pixels.shape[1], centres.shape[2])):
        cells, rows = tile.count * batch * grid.columns, tile.count * batch
        cut = wide.take("cells", (cells, pixels.shape[1], grid.pixels))
        tile.to_cells(pixels[:, :, tile.rows], wide, cut)
        points = wide.take("points", (cells, grid.pixels, pixels.shape[1])).copy_(cut.mT).view(rows, -1, cut.shape[1])
        exponent = wide.take("exponent", (rows, points.shape[1], centres.shape[2]))
        torch.bmm(points, centres.repeat(tile.count, 1, 1), out=exponent)
        exponent = scratch.cast("exponent", exponent.clamp_min_(_LEAST))
        kernel = halves.cast("kernel", exponent.exp2_())
        psi = out[tile.first : tile.last].flatten(2, 3).flatten(0, 1)  # (T·B)×(Q·P)×r
        torch.bmm(kernel, columns.root.repeat(tile.count, 1, 1), out=psi)
        if not everywhere:
            flags = halves.take("flags", (cells, 1, grid.pixels))
            tile.to_cells(mask[:, None, tile.rows], halves, flags)
            psi *= flags.view(rows, -1, 1)
        squares = torch.mul(psi, psi, out=halves.take("squares", psi.shape)).sum(2)
        part = own[:, :, tile.rows]
        part.copy_(tile.to_pixels(squares.view(cells, 1, -1), part.shape, halves))
    return own[:, 0]


def _augment(points: Tensor) -> Tensor:
    """Points B×D×H×W as (2x, −|x|², 1), whose product with (l, 1, −|l|²) is −|x−l|²."""
    batch, channels, height, width = points.shape
    augmented = points.new_ones(batch, channels + 2, height, width)
    scaled = torch.mul(points, 2 * _UNIT, out=augmented[:, :channels])
    augmented[:, channels] = scaled.square().sum(1) / -4
    return augmented


def _augment_landmarks(landmarks: Tensor) -> Tensor:
    """Landmarks B×m×D as B×(D+2)×m."""
    landmarks = landmarks * _UNIT
    square = -landmarks.square().sum(2, keepdim=True)
    return torch.cat([landmarks, torch.ones_like(square), square], 2).mT.contiguous()
