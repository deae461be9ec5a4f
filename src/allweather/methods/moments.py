"""Mean and variance per channel of what a layer sees, as fast as the layer, and of several looks together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_CANCELS = 64.0  # squared mean over variance beyond which float32 loses more than two of its seven digits
_WHOLE = 1 << 14  # numbers that float32 sums in one go; more of them, row by row


@dataclass(frozen=True, eq=False)
class Seen:
    """What a layer saw in one call: mean and variance per channel, C each, and of how many values they are."""

    mean: Tensor
    var: Tensor
    values: int


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel of B×C×…, C each.

    On the CPU `var_mean` over these axes takes ten times as long as the layer itself, and the difference from the mean
    is a second copy of the input. So the variance is mean square minus squared mean, and about the mean where those two
    would cancel.
    """
    axes = [axis for axis in range(values.ndim) if axis != 1]
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        var, mean = torch.var_mean(values, axes, correction=0)
        return mean, var
    mean, square = values.mean(axes), _mean_square(values)
    var = torch.addcmul(square, mean, mean, value=-1)
    if (cancels := square > (1 + _CANCELS) * var).any():
        few = values[:, cancels]
        var[cancels] = _mean_square(few - mean[cancels].view(1, -1, *(1 for _ in axes[1:])))
    return mean, var


def seen_in(input: Tensor, mean: Tensor, var: Tensor) -> Seen:
    """What was seen in an input B×C×…, by moments C each."""
    return Seen(mean, var, input.numel() // input.shape[1])


def pooled(seen: Sequence[Seen]) -> tuple[Tensor, Tensor]:
    """Mean and variance of all that was seen, C each; of a single call as they are."""
    if len(seen) == 1:
        return seen[0].mean, seen[0].var
    total = sum(each.values for each in seen)
    shares = [each.values / total for each in seen]
    mean = torch.stack([share * each.mean for share, each in zip(shares, seen, strict=True)]).sum(0)
    spread = [share * (each.var + (each.mean - mean) ** 2) for share, each in zip(shares, seen, strict=True)]
    return mean, torch.stack(spread).sum(0)


def _mean_square(values: Tensor) -> Tensor:
    """Per channel of B×C×…, C numbers."""
    values = values if values.ndim > 2 else values[..., None]
    whole = values.is_contiguous() and values[0, 0].numel() <= _WHOLE
    lengths = torch.linalg.vector_norm(values, dim=tuple(range(2, values.ndim)) if whole else -1)
    axes = [axis for axis in range(lengths.ndim) if axis != 1]
    return lengths.square_().sum(axes) / (values.numel() // values.shape[1])
