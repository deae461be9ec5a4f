"""Adaptive average pooling to any size as a few operations that ONNX has; its exporter would fix the size."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def adaptive_average(values: Tensor, size: Sequence[int]) -> Tensor:
    """`functional.adaptive_avg_pool2d` of B×C×H×W, by differences of running sums: B×C×`size`."""
    for axis, length in zip((2, 3), size, strict=True):
        values = _averaged(values, axis, length)
    return values


def _averaged(values: Tensor, axis: int, length: int) -> Tensor:
    """Output i is the mean from ⌊i·n/length⌋ up to ⌈(i + 1)·n/length⌉ of the n values along the axis."""
    if isinstance(length, int) and length == 1:
        return values.mean(axis, keepdim=True)
    size = values.shape[axis]
    index = torch.arange(length, device=values.device)
    starts = torch.div(index * size, length, rounding_mode="floor")
    ends = torch.div((index + 1) * size + length - 1, length, rounding_mode="floor")
    before = [1, 0] if axis == 3 else [0, 0, 1, 0]
    sums = functional.pad(values.cumsum(axis), before)
    means = sums.index_select(axis, ends) - sums.index_select(axis, starts)
    count = (ends - starts).to(values.dtype)
    return means / (count if axis == 3 else count[:, None])


DECOMPOSITIONS = {
    torch.ops.aten.adaptive_avg_pool2d.default: adaptive_average,
    torch.ops.aten._adaptive_avg_pool2d.default: adaptive_average,
}
