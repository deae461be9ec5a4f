"""Other views of the same images (mirrored, resized, recoloured) and their predictions on the images' own grid."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Network = Callable[[Tensor], Tensor]


def resized(images: Tensor, scale: float, antialias: bool = True) -> Tensor:
    """Images B×3×H×W enlarged or reduced by `scale`; reduced ones smoothed before if `antialias`."""
    if scale == 1.0:
        return images
    size = [max(1, int(side * scale)) for side in images.shape[2:]]
    return functional.interpolate(images, size, mode="bilinear", antialias=antialias and scale < 1.0)


def view_logits(
    network: Network, images: Tensor, scale: float = 1.0, mirror: bool = False, antialias: bool = True
) -> Tensor:
    """Logits of a view, brought back to the images' grid: B×C×H×W."""
    view = resized(images, scale, antialias)
    logits = network(view.flip(3) if mirror else view)
    logits = logits.flip(3) if mirror else logits
    if logits.shape[2:] == images.shape[2:]:
        return logits
    return functional.interpolate(logits, images.shape[2:], mode="bilinear")


def mean_probabilities(
    network: Network, images: Tensor, scales: Sequence[float], mirror: bool = True, antialias: bool = True
) -> Tensor:
    """The mean of the views' softmax, B×C×H×W: every scale, and its mirror image if `mirror`."""
    views = [(scale, flipped) for scale in scales for flipped in ((False, True) if mirror else (False,))]
    total = view_logits(network, images, *views[0], antialias).float().softmax(1)
    for view in views[1:]:
        total = total + view_logits(network, images, *view, antialias).float().softmax(1)
    return total / len(views)


def recoloured(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and gamma of each image drawn at random within ±`strength`; still in [0, 1]."""
    drawn = torch.rand(3, len(images), 1, 1, 1, generator=generator, dtype=images.dtype, device=generator.device)
    brightness, contrast, gamma = (1 + strength * (2 * drawn - 1)).to(images.device)
    mean = images.mean((1, 2, 3), keepdim=True)
    changed = ((images * brightness - mean) * contrast + mean).clamp(1e-4, 1)
    return changed**gamma
