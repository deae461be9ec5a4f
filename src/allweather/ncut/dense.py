"""The affinity and the normalized cut as their definitions read, for any type; the oracle of every test."""

import torch
from torch import Tensor

from allweather.errors import InputError

LIMIT = 12_288  # pixels per image; the matrix then has 1.5e8 entries


def dense_affinity(appearance: Tensor, mask: Tensor, sigma_xy: float) -> Tensor:
    """A, B×N×N, for appearance B×D×H×W already divided by its σ and mask B×H×W; N = H·W.

    Raises:
        AllWeatherError: for more than `LIMIT` pixels.
    """
    height, width = appearance.shape[2:]
    if height * width > LIMIT:
        raise InputError(
            f"the dense affinity of {height}×{width} pixels would have {height * width:,}² entries; it takes at most "
            f"{LIMIT:,} pixels. Use implementation='lowrank', or a smaller image."
        )
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([y, x]).flatten(1).to(appearance) / sigma_xy  # 2×N
    places = places.expand(appearance.shape[0], -1, -1)
    points = torch.cat([appearance.flatten(2), places], 1).transpose(1, 2)  # B×N×(D+2)
    distance = _squared_distances(points)
    valid = mask.flatten(1).to(appearance.dtype)
    return torch.exp(-distance / 2) * valid[:, :, None] * valid[:, None, :]


def _squared_distances(points: Tensor) -> Tensor:
    """Squared distances B×N×N without a tensor of N×N×D."""
    distance = points.new_zeros(points.shape[0], points.shape[1], points.shape[1])
    for axis in points.unbind(2):
        distance += (axis[:, :, None] - axis[:, None, :]).square()
    return distance


def dense_terms(scores: Tensor, affinity: Tensor) -> Tensor:
    """S_pᵀA(1 − S_p) / dᵀS_p per image and class, B×C, for scores B×C×H×W; 0 for a class without mass."""
    s = scores.flatten(2).transpose(1, 2)  # B×N×C
    degree = affinity.sum(2, keepdim=True)  # B×N×1
    cut = (s * (affinity @ (1 - s))).sum(1)
    mass = (degree * s).sum(1)
    massless = mass.abs() <= 1e-12 * degree.sum((1, 2))[:, None]
    return torch.where(massless, 0, cut / torch.where(massless, 1, mass))
