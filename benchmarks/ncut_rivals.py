"""Ways to filter with the affinity, the operator's rivals: each makes, from an image, a function that computes A·S."""

from collections.abc import Callable
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allweather import Affinity
from allweather.ncut.dense import LIMIT

Filter = Callable[[Tensor], Tensor]  # K×H×W scores to A·S, K×H×W
Maker = Callable[[Tensor, float, float], Filter]  # of an image 3×H×W in [0, 1], σ_rgb and σ_xy
_LABELS = 21  # 19 classes, the vector 1, and the label without mass
_PAIRS = 32_768**2  # of pixels; an exact rival is not asked for more


class Absent(Exception):
    """A rival that cannot run here, with the reason."""


def points(image: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    """Colour and place of every pixel divided by their σ, N×5; A is exp(−|difference|²/2)."""
    height, width = image.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.cat([image.flatten(1) * (255 / sigma_rgb), torch.stack([y, x]).flatten(1) / sigma_xy]).T.contiguous()


def exact_rows(places: Tensor, scores: Tensor, rows: Tensor, block: int = 512) -> Tensor:
    """A·S at the pixels `rows` by the definition, K×M, for scores K×N."""
    found = []
    for some in rows.split(block):
        kernel = torch.cdist(places[some], places, compute_mode="donot_use_mm_for_euclid_dist")
        found.append(kernel.square_().mul_(-0.5).exp_() @ scores.T)
    return torch.cat(found).T


def dense(image: Tensor, sigma_rgb: float, sigma_xy: float) -> Filter:
    """The definition as a matrix."""
    if image[0].numel() > LIMIT:
        raise Absent(f"the matrix is made for at most {LIMIT} pixels")
    affinity = Affinity.from_image(image[None], sigma_rgb=sigma_rgb, sigma_xy=sigma_xy, implementation="dense")
    return lambda scores: affinity.apply(scores[None])[0]


def keops(image: Tensor, sigma_rgb: float, sigma_xy: float) -> Filter:
    """The exact sum as a reduction that never stores the matrix (pykeops)."""
    if image[0].numel() ** 2 > _PAIRS:
        raise Absent(f"more than {_PAIRS:.1e} pairs of pixels")
    torch_keops = _module("pykeops.torch", "pykeops")
    places = points(image, sigma_rgb, sigma_xy)
    kernel = (-((torch_keops.Vi(places) - torch_keops.Vj(places)) ** 2).sum(2) / 2).exp()
    return lambda scores: (kernel @ scores.flatten(1).T.contiguous()).T.view(scores.shape)


def lattice(image: Tensor, sigma_rgb: float, sigma_xy: float) -> Filter:
    """The permutohedral lattice of Krähenbühl and Koltun (NIPS 2011) in pydensecrf2, without its normalisation.

    The package shows no filter, only a mean-field step Q ← softmax(w·A Q). With a small w and one more label that
    has no mass, A Q is the difference of logarithms to that label, over w.
    """
    crf = _module("pydensecrf.densecrf", "pydensecrf2")
    pixels = image[0].numel()
    weight = 20 / pixels  # A·S is at most the number of pixels: the softmax keeps all its digits
    features = np.ascontiguousarray(points(image, sigma_rgb, sigma_xy).T.numpy())
    field = crf.DenseCRF(pixels, _LABELS)
    field.setUnaryEnergy(np.zeros((_LABELS, pixels), dtype=np.float32))
    field.addPairwiseEnergy(features, compat=weight, kernel=crf.CONST_KERNEL, normalization=crf.NO_NORMALIZATION)

    def apply(scores: Tensor) -> Tensor:
        state, first, second = field.startInference()
        messages = np.asarray(state)
        messages[:-1], messages[-1] = scores.flatten(1).numpy(), 0
        field.stepInference(state, first, second)
        logarithms = torch.from_numpy(np.array(state)).log_()
        return ((logarithms[:-1] - logarithms[-1]) / weight).view(scores.shape)

    return apply


def grid(image: Tensor, sigma_rgb: float, sigma_xy: float) -> Filter:
    """A bilateral grid in five dimensions, cells of one σ, linear splat and slice; the scale of A is not kept."""
    places = points(image, sigma_rgb, sigma_xy)
    places = places - places.amin(0)
    lower = places.floor().long()
    share = places - lower
    shape = (lower.amax(0) + 2).tolist()
    strides = torch.tensor([int(np.prod(shape[axis + 1 :])) for axis in range(5)])
    corners = []
    for corner in product((0, 1), repeat=5):
        upper = torch.tensor(corner)
        weight = torch.where(upper.bool(), share, 1 - share).prod(1, keepdim=True)
        corners.append((((lower + upper) * strides).sum(1), weight))
    blurs = [_blur(size) for size in shape]

    def apply(scores: Tensor) -> Tensor:
        flat = scores.flatten(1).T.contiguous()
        nodes = torch.zeros(int(np.prod(shape)), flat.shape[1])
        for index, weight in corners:
            nodes.index_add_(0, index, flat * weight)
        for axis, blur in enumerate(blurs):
            before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
            nodes = blur @ nodes.view(before, shape[axis], after * flat.shape[1])
        nodes = nodes.view(-1, flat.shape[1])
        filtered = torch.zeros_like(flat)
        for index, weight in corners:
            filtered.addcmul_(nodes[index], weight)
        return filtered.T.reshape(scores.shape)

    return apply


RIVALS: dict[str, Maker] = {"dense": dense, "keops": keops, "lattice": lattice, "bilateral grid": grid}


def _blur(size: int) -> Tensor:
    distance = torch.arange(size, dtype=torch.float32)[:, None] - torch.arange(size)
    return torch.exp(-distance.square() / (2 * (1 - 1 / 3)))  # the two interpolations add a sixth of a cell² each


def _module(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise Absent(f"{package} is not installed: {error}") from error
