"""MALL: the weighted softmax multi-class normalized cut, minimised on the test images themselves."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from allweather.errors import SettingsError
from allweather.finite import all_finite
from allweather.methods.gradient import GradientMethod, relative_option
from allweather.methods.losses import diversity, mean_entropy
from allweather.methods.method import Batch, Objective, Refined, State
from allweather.methods.option import Need, option, where
from allweather.methods.stopping import Stopping
from allweather.methods.vector_scaling import moved_by_cut, scaled, unscaled
from allweather.methods.views import Views, lamplit, resized, views_option
from allweather.models.placing import device_of
from allweather.models.segmenter import Segmenter
from allweather.ncut import Affinity

_PAPER: dict[str, Any] = {
    "parameters": "all",
    "optimizer": "sgd",
    "lr": 0.01,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "poly",
    "bn": "train",
    "share": 0.1,
    "sigma_rgb": 15.0,
    "sigma_xy": 100.0,
    "scale": 0.5,
    "class_weights": "uniform",
    "ncut_weight": 1.0,
    "entropy_weight": 0.0,
    "diversity_weight": 0.0,
    "feature_sigma": None,
    "anchor": 0.0,
    "lookahead": 0.0,
    "views": ("plain",),
    "relative": False,
    "vector_rate": 0.0,
}

_BEST = {"views": ("plain", "relit-mirror", "x1.5-fit", "relit-mirror-x1.5-fit")}

_STOPS = Need(
    "iterations above 1, or episodic=false, where it ends the passes of the transductive protocol",
    lambda method: not method.episodic or method.iterations > 1,
)

_VECTOR = "vector"  # how far gains and biases have moved
_VECTOR_SCALE, _VECTOR_RANK = 0.125, 48  # where the cut moves them; a quarter of the size or rank 96 gain no more
_VECTOR_WIDTH = 0.5  # of sigma_xy; the whole gains less (lab notes)


@dataclass(frozen=True, kw_only=True)
class Mall(GradientMethod):
    """The loss of Reddy et al., ECCV 2022, supplement Eq. 1, on the prediction at a reduced scale.

    loss = ncut_weight · Σ_p w_p S_pᵀA(1 − S_p) / dᵀS_p + entropy_weight · mean H(S_i) − diversity_weight · H(mean S)

    What is reported is (1 + g_c) · ln p_c + b_c, p the mean over the views; a step down each image's normalized cut
    moves g and b, except where lamps light the scene (as the view `relit` says), which costs accuracy there.
    """

    source: ClassVar[str] = (
        "Reddy et al., Master of All: Simultaneous Generalization of Urban-Scene Segmentation to All Adverse Weather "
        "Conditions, ECCV 2022"
    )

    reconstruction: ClassVar[str] = (
        "the paper and its supplement give no optimizer, learning rate, σ, or BatchNorm mode for adaptation"
    )

    views: Views = views_option("plain", "relit-mirror-x1.5-fit")
    lr: float = option(4e-3, "learning rate", low=0)
    relative: bool = relative_option(True)
    scale: float = option(
        0.25, "share of the input's size at which the loss sees prediction and image", above=0, high=1
    )
    sigma_rgb: float = option(15.0, "width of the affinity in colour, on the 0..255 scale", above=0)
    sigma_xy: float = option(100.0, "width of the affinity in space, in pixels of the input", above=0)
    feature_sigma: float | None = option(
        0.3, "width of the affinity in the probabilities of the first prediction, 0..1; none: no such term", above=0
    )
    scores: Literal["softmax", "log_softmax"] = option(
        "softmax", "scores S in the loss; log_softmax follows the paper's wording, but drives predictions to uniform"
    )
    class_weights: Literal["uniform", "predicted-mass", "inverse-mass"] | tuple[float, ...] = option(
        "uniform", "w of the loss: uniform, predicted-mass, inverse-mass, or one number per class", low=0
    )
    ncut_weight: float = option(0.3, "weight of the normalized cut", low=0)
    entropy_weight: float = option(1.0, "weight of the mean entropy of the pixels' predictions", low=0)
    diversity_weight: float = option(0.5, "weight of the entropy of the mean prediction, which is maximised", low=0)
    stop_tolerance: float = option(
        0.001, "relative change of the normalized cut below which a step counts as flat", low=0, needs=_STOPS
    )
    stop_patience: int = option(1, "flat steps in a row that end the iterations", low=1, needs=_STOPS)
    stop_rise: float = option(0.01, "relative rise of the normalized cut that ends the iterations", low=0, needs=_STOPS)
    rank: Literal["auto"] | int = option(
        "auto", "rank of the affinity's low-rank form; auto: the lowest that meets the error bound", low=1
    )
    max_rank: int = option(96, "maximum rank of rank=auto", low=1, needs=where(rank="auto"))
    vector_rate: float = option(
        0.2,
        "step of a gain and a bias per class of the prediction down the normalized cut of each image, the length of "
        "the largest; 0: predictions are not scaled",
        low=0,
        absent=0.0,
        before="no vector scaling",
    )
    vector_memory: float = option(
        0.8,
        "share of those gains and biases that is kept from batch to batch, 0..1",
        low=0,
        high=1,
        needs=Need(
            "vector_rate above 0 and episodic=false", lambda method: method.vector_rate > 0 and not method.episodic
        ),
    )

    def begin(self, model: Segmenter) -> State:
        state = super().begin(model)
        if self.vector_rate:
            state.output[_VECTOR] = unscaled(len(model.classes), device_of(model))
        return state

    @property
    def stopping(self) -> Stopping:
        return Stopping(self.stop_tolerance, self.stop_patience, self.stop_rise)

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        small = resized(logits.float(), self.scale, antialias=False)
        probabilities = small.softmax(1)
        affinity = batch.once("affinity", lambda: self.affinity(batch.images, probabilities.detach()))
        scores = probabilities if self.scores == "softmax" else small.log_softmax(1)
        ncut = affinity.normalized_cut(scores, self._weights(probabilities.detach()))
        loss = self.ncut_weight * ncut
        if self.entropy_weight:
            loss = loss + self.entropy_weight * mean_entropy(small)
        if self.diversity_weight:
            loss = loss - self.diversity_weight * diversity(probabilities)
        return Objective(logits, loss, watched=ncut)

    @torch.no_grad()
    def refine(self, state: State, images: Tensor, logits: Tensor) -> Refined:
        if _VECTOR not in state.output:
            return Refined(logits)
        logits = logits if len(self.looks) > 1 else logits.float().log_softmax(1)
        small = resized(logits, _VECTOR_SCALE)
        if not all_finite(small):
            return Refined(logits)
        affinity = self._affinity(images, small.softmax(1), self.sigma_xy * _VECTOR_WIDTH * _VECTOR_SCALE, _VECTOR_RANK)
        before, lamps = state.output[_VECTOR], lamplit(images)
        moved = moved_by_cut(self.vector_memory * before, small, affinity, self.vector_rate, lamps)
        kept = torch.where(lamps.all(), before, moved)
        return Refined(scaled(logits, torch.where(lamps, 0, moved[:, None])), {_VECTOR: kept})

    def affinity(self, images: Tensor, probabilities: Tensor) -> Affinity:
        """The affinity of images B×3×H×W (RGB in [0, 1]) on the grid of the first prediction B×C×h×w.

        The images are those that are learnt from: reduced by `adapt_scale` already.
        """
        return self._affinity(images, probabilities, self.sigma_xy * self.scale * self.adapt_scale, self.rank)

    def _affinity(
        self, images: Tensor, probabilities: Tensor, sigma_xy: float, rank: int | Literal["auto"]
    ) -> Affinity:
        """The same with a width in pixels of that grid."""
        size = probabilities.shape[-2:]
        return Affinity.from_image(
            functional.interpolate(images, size, mode="bilinear", antialias=True),
            sigma_rgb=self.sigma_rgb,
            sigma_xy=sigma_xy,
            rank=rank,
            max_rank=self.max_rank,
            features=None if self.feature_sigma is None else probabilities,
            sigma_features=self.feature_sigma or 1.0,
            warn_above=0.3,  # a sharp prediction reaches 0.2 at the most columns, by choice
        )

    def _weights(self, probabilities: Tensor) -> Tensor | None:
        """w, B×C or C, or None for uniform; predicted-mass sums to 1, inverse-mass has mean 1."""
        if self.class_weights == "uniform":
            return None
        mass = probabilities.mean((2, 3))
        if self.class_weights == "predicted-mass":
            return mass
        if self.class_weights == "inverse-mass":
            # a class below a tenth of an equal share weighs no more than one at it
            inverse = 1 / mass.clamp_min(0.1 / mass.shape[1])
            return inverse / inverse.mean(1, keepdim=True)
        if len(self.class_weights) != mass.shape[1]:
            raise SettingsError(
                f"{self.name}.class_weights: expected {mass.shape[1]} numbers, one per class, "
                f"got {len(self.class_weights)}."
            )
        return mass.new_tensor(self.class_weights)


@dataclass(frozen=True, kw_only=True)
class MallSample(Mall):
    """MALL-sample: each batch on its own, the source network again after it."""

    name: ClassVar[str] = "mall-sample"
    presets: ClassVar = {"paper": _PAPER | {"iterations": 5, "horizon": 5}, "best": _BEST}
    without_batchnorm: ClassVar = {"lr": 1e-2, "relative": False}


@dataclass(frozen=True, kw_only=True)
class MallDomain(Mall):
    """MALL-domain: one adaptation that goes on along the stream.

    Slowly and held to the source by `anchor`; each prediction looks a longer step ahead that is not kept.
    """

    name: ClassVar[str] = "mall-domain"
    presets: ClassVar = {
        "paper": _PAPER | {"report_after": True},
        "fast": {"views": ("plain", "grey-x1.2"), "surest": True, "adapt_every": 12, "lr": 2e-3},
        "best": _BEST,
    }
    without_batchnorm: ClassVar = {
        "lr": 3e-4,
        "lookahead": 1e-2,
        "relative": False,
        "ncut_weight": 1.0,
        "entropy_weight": 0.0,
        "diversity_weight": 0.0,
    }

    episodic: bool = option(False, "return to the source network after each batch")
    lr: float = option(4e-4, "learning rate", low=0)
    anchor: float = option(
        0.02, "share of the way back to the source that parameters go after each update, 0..1", low=0, high=1
    )
    lookahead: float = option(
        4e-3,
        "learning rate of one extra Adam step that only this batch's prediction sees",
        low=0,
        needs=where(report_after=True),
    )
