"""Whether two predictions agree, and pictures to compare them on."""

import torch
from torch import Tensor
from torch.nn import functional

from allweather.finite import all_finite

_LEAST, _LEAST_IN_HALF = 0.999, 0.99  # shares of pixels whose class must stay; in half precision ties are many
_NEAR = 2e-2  # of the logits' standard deviation: how far they may differ on average, or at most where classes are tied


def disagreement(found: Tensor, expected: Tensor, *, half: bool = False) -> str:
    """How two predictions B×C×H×W differ, in words; empty where they do not.

    Args:
        half: whether the network computes in half precision.
    """
    if found.shape != expected.shape:
        return f"logits of shape {tuple(found.shape)} for {tuple(expected.shape)}"
    if not all_finite(found):
        return "logits that are not finite"
    same = (found.argmax(1) == expected.argmax(1)).float().mean().item()
    away = (found - expected).abs() / expected.std().clamp_min(1e-12)
    mean, worst = away.mean().item(), away.max().item()
    if worst <= _NEAR or (same >= (_LEAST_IN_HALF if half else _LEAST) and mean <= _NEAR):
        return ""
    return (
        f"{1 - same:.2%} of the pixels are of another class, logits differ by {mean:.2g} standard deviations on "
        f"average and {worst:.2g} at most"
    )


def picture(size: tuple[int, int]) -> Tensor:
    """Soft random colour patches with a little noise, 1×3×height×width: something to compare predictions on.

    Args:
        size: (width, height).
    """
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(1, 3, 6, 8, generator=generator, dtype=torch.float32)
    soft = functional.interpolate(patches, (size[1], size[0]), mode="bicubic")
    noise = torch.rand(1, 3, size[1], size[0], generator=generator, dtype=torch.float32) - 0.5
    return (soft + 0.2 * noise).clamp(0, 1)
