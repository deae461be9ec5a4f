"""Pixels in the order of cells: tiles of whole rows of cells, and the memory that the tiles of a pass share."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

_TILE = 1 << 21  # the least numbers of a tile's widest intermediate: fewer would cost more in starting operations
_UNITS = (torch.complex128, torch.int64, torch.int32)  # 16, 8 and 4 bytes


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
class Grid:
    """R×Q cells of `cell_y`×`cell_x` pixels over images of `height` × `width`, which the last cells may exceed."""

    rows: int
    columns: int
    cell_y: int
    cell_x: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """P, the pixels of a cell."""
        return self.cell_y * self.cell_x

    def tiles(self, widest: int, least: int = 0) -> list["Tile"]:
        """Some rows of cells each, whose widest intermediate, `widest` numbers a pixel, has 2²¹ numbers or `least`.

        A pass that follows another goes through them in reverse: the last ones are still in the cache.
        """
        step = max(1, max(_TILE, least) // (self.columns * self.pixels * widest))
        bounds = [(first, min(self.rows, first + step)) for first in range(0, self.rows, step)]
        cell = self.cell_y
        return [Tile(self, first, last, slice(first * cell, min(last * cell, self.height))) for first, last in bounds]


@dataclass(frozen=True)
class Tile:
    """Some rows of cells, [first, last), and the pixel rows they cover."""

    grid: Grid
    first: int
    last: int
    rows: slice

    @property
    def count(self) -> int:
        """T, the rows of cells."""
        return self.last - self.first

    def to_cells(self, images: Tensor, scratch: Scratch, out: Tensor) -> None:
        """Cuts the tile's pixels B×K×h×W into `out` (T·B·Q)×K×P; what the last cells lack is 0."""
        batch, channels, height, width = images.shape
        whole = scratch.take("image", self._whole(batch, channels), out.dtype)
        whole[:, :, height:] = 0
        whole[:, :, :, width:] = 0
        whole[:, :, :height, :width] = images
        cells = out.unflatten(2, (self.grid.cell_y, self.grid.cell_x))
        cells = cells.unflatten(0, (self.count, batch, self.grid.columns))
        _copy_runs(self._cut(whole), cells)

    def to_pixels(self, cells: Tensor, shape: torch.Size, scratch: Scratch) -> Tensor:
        """Cells (T·B·Q)×K×P back to pixels B×K×h×W = `shape`, in scratch memory."""
        batch, channels, height, width = shape
        whole = scratch.take("image", self._whole(batch, channels), cells.dtype)
        cells = cells.unflatten(2, (self.grid.cell_y, self.grid.cell_x))
        _copy_runs(cells.unflatten(0, (self.count, batch, self.grid.columns)), self._cut(whole))
        return whole[:, :, :height, :width]

    def _whole(self, batch: int, channels: int) -> tuple[int, int, int, int]:
        return batch, channels, self.count * self.grid.cell_y, self.grid.columns * self.grid.cell_x

    def _cut(self, images: Tensor) -> Tensor:
        """Pixels B×K×(T·py)×(Q·px) seen as cells T×B×Q×K×py×px, without a copy."""
        columns = images.unflatten(3, (self.grid.columns, self.grid.cell_x))
        return columns.unflatten(2, (self.count, self.grid.cell_y)).permute(2, 0, 4, 1, 3, 5)


def _copy_runs(source: Tensor, target: Tensor) -> None:
    """Copies numbers whose last dimension is one run in both, in the widest unit that divides the runs.

    Moving a run of eight bfloat16 as one number of 16 bytes takes a fifth of the time.
    """
    size = source.shape[-1] * source.element_size()
    unit = next((unit for unit in _UNITS if not size % unit.itemsize), source.dtype)
    target.view(unit).copy_(source.view(unit))
