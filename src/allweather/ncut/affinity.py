"""The affinity of an image: made once, then applied to any number of scores."""

import warnings
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from allweather.errors import InputError, NcutAccuracyWarning, NotFiniteError, check_known
from allweather.finite import extremes
from allweather.ncut.dense import dense_affinity, dense_terms
from allweather.ncut.landmarks import choose_columns
from allweather.ncut.lowrank import Factors, factorise
from allweather.ncut.operators import ncut_filter, ncut_terms
from allweather.rgb import check_unit_range
from allweather.values import check_number

Implementation = Literal["auto", "dense", "lowrank"]
Reduction = Literal["mean", "sum", "none"]
_REDUCTIONS = get_args(Reduction)  # torch 2.6 cannot trace the call
Precision = Literal["auto", "float32", "bfloat16"]

_INACCURATE = (
    "the low-rank form may be further than {limit:.1%} from the affinity's definition: colours or features are "
    "too many for the rank. Widen sigma_rgb or sigma_features, raise max_rank (or rank), or use "
    "implementation='dense' on a small image; `Affinity.error` is the estimate."
)
_MANY = 1 << 14  # pixels over which the rounding of bfloat16 averages out, and below which time is no matter


@dataclass(frozen=True, eq=False)
class Affinity:
    """How similar pixels are: A_ij = exp(−|c_i−c_j|²/2σ_rgb² − |x_i−x_j|²/2σ_xy²), A_ii = 1, for a batch of images.

    c is the color of a pixel on the scale 0..255, x its place in pixels. Make one with `Affinity.from_image`.

    Attributes:
        form: the dense matrix B×N×N, or the factors of the low-rank operator.
        counts: B×H×W, true where a pixel counts.
        error: estimated relative error of the gradient that the rank leaves, from sampled pixels, of the image of the
            batch that has most. The grid and bfloat16 add up to 0.006. 0 for the dense matrix.

    Example:
        >>> import allweather as aw, torch
        >>> image = torch.rand(1, 3, 24, 32)
        >>> scores = torch.rand(1, 19, 24, 32).softmax(1)
        >>> affinity = aw.Affinity.from_image(image, sigma_xy=10.0, rank=64)
        >>> affinity.normalized_cut(scores).shape
        torch.Size([])
    """

    form: Tensor | Factors
    counts: Tensor
    error: float = 0.0

    def __repr__(self) -> str:
        form = "dense" if self.rank is None else f"rank {self.rank}, error {self.error:.1%}"
        return f"Affinity({'×'.join(map(str, self.counts.shape))}, {form})"

    @classmethod
    def from_image(
        cls,
        image: Tensor,
        *,
        sigma_rgb: float = 15.0,
        sigma_xy: float = 100.0,
        mask: Tensor | None = None,
        rank: int | Literal["auto"] = "auto",
        error: float = 0.012,
        max_rank: int = 256,
        implementation: Implementation = "auto",
        precision: Precision = "auto",
        features: Tensor | None = None,
        sigma_features: float = 1.0,
        warn_above: float = 0.015,
    ) -> "Affinity":
        """The affinity of images B×3×H×W, RGB in [0, 1].

        Args:
            image: B×3×H×W, RGB in [0, 1].
            sigma_rgb: width in color, on the scale 0..255.
            sigma_xy: width in space, in pixels of this image.
            mask: B×H×W or H×W, true where a pixel counts; the others have zero rows.
            rank: number of columns of the appearance factor of `lowrank`. `auto`: the fewest that leave at most `error`
                of the sampled pixels' kernel, up to `max_rank`.
            error: share of the sampled pixels' kernel that `rank="auto"` may leave; `ncut/README.md` says what that
                means for the gradient.
            max_rank: maximum rank of `rank="auto"`.
            implementation: `dense`: the definition itself, for at most 12,288 pixels. `lowrank`: linear in pixels.
                `auto` is `lowrank`.
            precision: of the factors in the large products of `lowrank`; sums are float32 in any case. `auto`: bfloat16
                for 16,384 pixels and more where the processor has instructions for it. Float64 images take float64.
            features: B×F×H×W; multiplies the affinity by exp(−|f_i−f_j|²/2σ_f²).
            sigma_features: σ_f, in units of the features.
            warn_above: the estimated error above which an `NcutAccuracyWarning` says so where `rank` is `auto`.

        Raises:
            AllWeatherError: for shapes that do not fit, a σ or rank that is not positive, an `error` outside [0, 1),
                pixels outside [0, 1], values that are not finite, an unknown implementation, or an image too large for
                `dense`.
        """
        check_known("implementation", implementation, get_args(Implementation))
        check_known("precision", precision, get_args(Precision))
        for name, width in (("sigma_rgb", sigma_rgb), ("sigma_xy", sigma_xy), ("sigma_features", sigma_features)):
            check_number(name, width, above=0)
        check_number("error", error, low=0, below=1)
        check_number("warn_above", warn_above, low=0)
        check_number("max_rank", max_rank, whole=True, low=1)
        if rank != "auto":
            check_number("rank (or 'auto')", rank, whole=True, low=1)
        _check(image, mask, features)
        batch, _, height, width = image.shape
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            kind = image.dtype if image.dtype == torch.float64 else torch.float32
            appearance = image.to(kind) * (255 / sigma_rgb)
            if features is not None:
                appearance = torch.cat([appearance, features.to(kind) / sigma_features], 1)
            counts = image.new_ones(batch, height, width, dtype=torch.bool) if mask is None else mask != 0
            counts = counts.expand(batch, height, width)
            form: Tensor | Factors
            estimated = 0.0
            if implementation == "dense":
                form = dense_affinity(appearance, counts, sigma_xy)
            else:
                products = kind if kind == torch.float64 else _product_type(precision, image)
                flat = appearance.flatten(2).mT
                middle = flat.mean(1, keepdim=True)  # |x|² and |l|² stay small beside their difference
                most, bound = (max_rank, error) if rank == "auto" else (rank, None)
                columns = choose_columns(flat - middle, counts.flatten(1), width, most, bound, products)
                form = factorise(appearance - middle.mT[..., None], counts, sigma_xy, columns)
                estimated = columns.error
        if rank == "auto" and estimated > warn_above:
            warnings.warn(_INACCURATE.format(limit=warn_above), NcutAccuracyWarning, stacklevel=2)
        return cls(form, counts, estimated)

    @property
    def degree(self) -> Tensor:
        """d = A·1 over the pixels that count, B×H×W; 0 at the others."""
        kind = self.form.delta.dtype if isinstance(self.form, Factors) else self.form.dtype
        one = self.counts[:, None].to(kind)
        return (self.apply(one) * one)[:, 0]

    @property
    def rank(self) -> int | None:
        """The rank of the low-rank operator, at most the number of landmarks; None for the dense matrix."""
        return self.form.rank if isinstance(self.form, Factors) else None

    def apply(self, scores: Tensor) -> Tensor:
        """A·S for scores B×C×H×W, differentiable."""
        self._fits(scores)
        if isinstance(self.form, Factors):
            return ncut_filter(scores, self.form)
        with torch.autocast(scores.device.type, enabled=False):
            return (scores.flatten(2) @ self.form.to(scores.dtype)).unflatten(2, self.counts.shape[1:])

    def terms(self, scores: Tensor) -> Tensor:
        """S_pᵀA(1 − S_p) / dᵀS_p of each class, before weighting: B×C for `scores` B×C×H×W; 0 for an empty class."""
        self._fits(scores)
        if isinstance(self.form, Factors):
            return ncut_terms(scores, self.form)
        with torch.autocast(scores.device.type, enabled=False):  # the cut is a small difference of large sums
            return dense_terms(scores.to(self.form.dtype), self.form)

    def normalized_cut(
        self, scores: Tensor, class_weights: Tensor | None = None, reduction: Reduction = "mean"
    ) -> Tensor:
        """Σ_p w_p S_pᵀA(1 − S_p) / dᵀS_p (Reddy et al., ECCV 2022, supplement Eq. 1).

        Args:
            scores: B×C×H×W, any floating type; sums are taken in float32 (float64 for float64 images).
            class_weights: w, C or B×C; 1 where None. Weights that are not finite give a loss that is not, as scores do.
            reduction: over the images: `mean`, `sum`, or `none` for one number each.

        Raises:
            AllWeatherError: for scores or weights of another shape, and an unknown reduction.
        """
        check_known("reduction", reduction, _REDUCTIONS)
        terms = self.terms(scores)
        if class_weights is not None:
            batch, classes = terms.shape
            if not isinstance(class_weights, Tensor) or tuple(class_weights.shape) not in (
                (classes,),
                (batch, classes),
            ):
                raise InputError(
                    f"class_weights: expected {classes} numbers, one per class, or {batch}×{classes}, one per image "
                    f"and class, as a tensor; got {_described(class_weights)}."
                )
            terms = terms * class_weights.to(terms)
        losses = terms.sum(1)
        if reduction == "none":
            return losses
        return losses.mean() if reduction == "mean" else losses.sum()

    def _fits(self, scores: Tensor) -> None:
        batch, height, width = self.counts.shape
        fits = isinstance(scores, Tensor) and scores.ndim == 4 and scores.is_floating_point()
        if not fits or (scores.shape[0], *scores.shape[2:]) != (batch, height, width):
            raise InputError(
                f"expected scores {batch}×C×{height}×{width}, floats on the image's grid; got {_described(scores)}."
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
    """The normalized cut of a prediction on its images; small where classes end at edges of the image.

    Σ_p w_p S_pᵀA(1 − S_p) / dᵀS_p (Reddy et al., ECCV 2022, supplement Eq. 1), with a gradient for the scores. To use
    one affinity several times, see `Affinity.normalized_cut`.

    Args:
        scores: S, B×C×H×W, usually a softmax.
        image: B×3×H×W, RGB in [0, 1].
        sigma_rgb, sigma_xy, mask, rank, implementation: see `Affinity.from_image`.
        class_weights: w, C or B×C numbers; 1 where None. Some that are not finite give a loss that is not.
        reduction: over the images: `mean`, `sum`, or `none` for one number each.

    Returns:
        A number, or B numbers for `none`; each between 0 and Σ w for scores in [0, 1].

    Raises:
        AllWeatherError: for shapes that do not fit, and as `Affinity.from_image`.

    Example:
        >>> import allweather as aw, torch
        >>> image = torch.zeros(1, 3, 8, 8)
        >>> image[..., 4:] = 1.0  # black on the left, white on the right
        >>> classes = torch.stack([image[:, 0], 1 - image[:, 0]], 1)  # two classes that end at that edge
        >>> float(aw.normalized_cut(classes, image)) < 1e-3
        True
    """
    affinity = Affinity.from_image(
        image, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy, mask=mask, rank=rank, implementation=implementation
    )
    return affinity.normalized_cut(scores, class_weights, reduction)


def _product_type(precision: Precision, image: Tensor) -> torch.dtype:
    if precision == "auto":
        many = image.shape[2] * image.shape[3] >= _MANY
        precision = "bfloat16" if many and _multiplies_bfloat16(image.device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16 with sums of float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    ask = getattr(torch.cpu, "get_capabilities", None)  # torch 2.6 has no such question: no instructions, then
    found = ask() if device.type == "cpu" and ask else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _check(image: Any, mask: Any, features: Any) -> None:
    """Refuses what is no batch of RGB images in [0, 1], or does not lie on its grid; reads two numbers of each."""
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise InputError(f"expected images B×3×H×W, RGB floats in [0, 1]; got {_described(image)}.")
    if not image.numel():
        raise InputError(f"expected images B×3×H×W with pixels, got {_described(image)}.")
    batch, _, height, width = image.shape
    grid = (height, width)
    if mask is not None and (
        not isinstance(mask, Tensor) or tuple(mask.shape) not in (grid, (1, *grid), (batch, *grid))
    ):
        raise InputError(
            f"mask: expected the image's {height}×{width} pixels, H×W or {batch}×H×W; got {_described(mask)}."
        )
    if features is not None and not _is_beside(features, image):
        raise InputError(
            f"features: expected {batch}×F×{height}×{width}, on the image's grid; got {_described(features)}."
        )
    low, high = extremes(image)
    if not (isfinite(low) and isfinite(high)) or not (features is None or all(map(isfinite, extremes(features)))):
        raise NotFiniteError("the affinity needs finite pixels and features, and some are NaN or infinite.")
    check_unit_range(low, high, "the affinity: ")


def _is_beside(features: Any, image: Tensor) -> bool:
    """Whether they are B×F×H×W, of the image's B, H and W."""
    if not isinstance(features, Tensor) or features.ndim != 4 or features.is_complex():
        return False
    return (features.shape[0], *features.shape[2:]) == (image.shape[0], *image.shape[2:])


def _described(value: Any) -> str:
    return f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
