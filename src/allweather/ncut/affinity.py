"""The affinity of an image: made once, then applied to any number of scores."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from allweather.errors import AllWeatherError, unknown
from allweather.ncut.dense import dense_affinity, dense_terms
from allweather.ncut.lowrank import Factors, factorise
from allweather.ncut.operators import ncut_filter, ncut_terms

Implementation = Literal["auto", "dense", "lowrank"]
Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True)
class Affinity:
    """A_ij = exp(−|c_i−c_j|²/2σ_rgb² − |x_i−x_j|²/2σ_xy²) of a batch of images; A_ii = 1.

    Made by `from_image`.

    Attributes:
        form: the dense matrix B×N×N, or the factors of the low-rank operator.
        shape: (B, H, W).
    """

    form: Tensor | Factors
    shape: tuple[int, int, int]

    @classmethod
    def from_image(
        cls,
        image: Tensor,
        *,
        sigma_rgb: float = 15.0,
        sigma_xy: float = 100.0,
        mask: Tensor | None = None,
        rank: int | Literal["auto"] = "auto",
        error: float = 0.025,
        implementation: Implementation = "auto",
        features: Tensor | None = None,
        sigma_features: float = 1.0,
    ) -> "Affinity":
        """The affinity of images B×3×H×W, RGB in [0, 1].

        Args:
            sigma_rgb: width in colour, on the 0..255 scale.
            sigma_xy: width in space, in pixels of this image.
            mask: B×H×W or H×W, true where a pixel counts; the others have zero rows.
            rank: number of landmark appearances of `lowrank`; `auto` takes the least that leaves a mean residual of
                at most `error` (README.md states what that bounds).
            implementation: `dense`, the definition itself; `lowrank`, linear in pixels; `auto` is `lowrank`.
            features: B×F×H×W; multiplies the kernel by exp(−|f_i−f_j|²/2σ_f²), σ_f = `sigma_features`.

        Raises:
            AllWeatherError: for shapes that do not fit, a σ or rank that is not positive, values that are not
                finite, an unknown implementation, or an image too large for `dense`.
        """
        if implementation not in get_args(Implementation):
            raise unknown("implementation", implementation, get_args(Implementation))
        _check(
            image,
            mask,
            features,
            {"sigma_rgb": sigma_rgb, "sigma_xy": sigma_xy, "sigma_features": sigma_features},
        )
        if rank != "auto" and (not isinstance(rank, int) or rank < 1):
            raise AllWeatherError(f"rank: expected 'auto' or a positive integer, got {rank!r}.")
        batch, _, height, width = image.shape
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            kind = image.dtype if image.dtype == torch.float64 else torch.float32
            appearance = image.to(kind) * (255 / sigma_rgb)
            if features is not None:
                appearance = torch.cat([appearance, features.to(kind) / sigma_features], 1)
            counts = image.new_ones(batch, height, width, dtype=torch.bool) if mask is None else mask.bool()
            counts = counts.expand(batch, height, width)
            form: Tensor | Factors
            if implementation == "dense":
                form = dense_affinity(appearance, counts, sigma_xy)
            else:
                form = factorise(appearance, counts, sigma_xy, None if rank == "auto" else rank, error)
        return cls(form, (batch, height, width))

    @property
    def degree(self) -> Tensor:
        """d = A·1 over the pixels that count, B×H×W."""
        return self.form.degree if isinstance(self.form, Factors) else self.form.sum(2).unflatten(1, self.shape[1:])

    @property
    def rank(self) -> int | None:
        """The rank of the low-rank operator; None for the dense matrix."""
        return self.form.rank if isinstance(self.form, Factors) else None

    def apply(self, scores: Tensor) -> Tensor:
        """A·S for scores B×C×H×W, differentiable."""
        self._fits(scores)
        if isinstance(self.form, Factors):
            return ncut_filter(scores, self.form)
        return (scores.flatten(2) @ self.form.to(scores.dtype)).unflatten(2, self.shape[1:])

    def terms(self, scores: Tensor) -> Tensor:
        """The cut of each class before weighting, S_pᵀA(1 − S_p) / dᵀS_p: B×C, 0 for a class without mass."""
        self._fits(scores)
        if isinstance(self.form, Factors):
            return ncut_terms(scores, self.form)
        return dense_terms(scores.to(self.form.dtype), self.form)

    def normalized_cut(
        self, scores: Tensor, class_weights: Tensor | None = None, reduction: Reduction = "mean"
    ) -> Tensor:
        """Σ_p w_p S_pᵀA(1 − S_p) / dᵀS_p (Reddy et al., ECCV 2022, supplement Eq. 1).

        Args:
            scores: B×C×H×W, any floating type; sums are taken in float32 (float64 for float64 images).
            class_weights: w, C or B×C; 1 where None.
            reduction: over the images: `mean`, `sum`, or `none` for one number each.
        """
        if reduction not in get_args(Reduction):
            raise unknown("reduction", reduction, get_args(Reduction))
        terms = self.terms(scores)
        if class_weights is not None:
            if class_weights.shape[-1] != terms.shape[1]:
                raise AllWeatherError(
                    f"class_weights: expected {terms.shape[1]} numbers, one per class, got {list(class_weights.shape)}."
                )
            terms = terms * class_weights.to(terms)
        losses = terms.sum(1)
        if reduction == "none":
            return losses
        return losses.mean() if reduction == "mean" else losses.sum()

    def _fits(self, scores: Tensor) -> None:
        batch, height, width = self.shape
        if scores.ndim != 4 or (scores.shape[0], *scores.shape[2:]) != self.shape:
            raise AllWeatherError(
                f"expected scores {batch}×C×{height}×{width}, on the grid of the image, got {tuple(scores.shape)}."
            )


def normalized_cut(
    scores: Tensor,
    image: Tensor,
    *,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    class_weights: Tensor | None = None,
    mask: Tensor | None = None,
    rank: int | Literal["auto"] = "auto",
    implementation: Implementation = "auto",
    reduction: Reduction = "mean",
) -> Tensor:
    """The normalized cut of scores B×C×H×W on images B×3×H×W (RGB in [0, 1]); see `Affinity` for the arguments."""
    affinity = Affinity.from_image(
        image, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy, mask=mask, rank=rank, implementation=implementation
    )
    return affinity.normalized_cut(scores, class_weights, reduction)


def _check(image: Tensor, mask: Tensor | None, features: Tensor | None, widths: dict[str, float]) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point() or not image.numel():
        raise AllWeatherError(
            f"expected images B×3×H×W, RGB floats in [0, 1]; got {tuple(image.shape)} of {image.dtype}."
        )
    for name, width in widths.items():
        if not 0 < width < float("inf"):
            raise AllWeatherError(f"{name}: expected a positive number, got {width}.")
    size = tuple(image.shape[2:])
    for name, other in (("mask", mask), ("features", features)):
        if other is not None and tuple(other.shape[-2:]) != size:
            raise AllWeatherError(f"{name}: expected the image's {size[0]}×{size[1]} pixels, got {tuple(other.shape)}.")
    if not image.isfinite().all() or (features is not None and not features.isfinite().all()):
        raise AllWeatherError("the affinity needs finite pixels and features, and some are NaN or infinite.")
