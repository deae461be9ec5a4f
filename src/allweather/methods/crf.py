"""Dense CRF: the prediction smoothed by the affinity, nothing learnt; the rival of the normalized cut."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from allweather.methods.method import Batch, Method, Objective, State
from allweather.methods.normalization import BNMode, adopt_statistics, bn_option, share_option
from allweather.methods.option import option
from allweather.methods.views import Views, resized, views_option
from allweather.models.segmenter import Segmenter
from allweather.ncut import Affinity


@dataclass(frozen=True, kw_only=True)
class Crf(Method):
    """Mean field of a fully connected CRF with Potts compatibility (Krähenbühl and Koltun, Algorithm 1).

    Q ← softmax(log p + weight · (A Q − Q) / (d − 1)), with A the affinity that MALL's loss has, in place of a lattice.
    """

    name: ClassVar[str] = "crf"
    source: ClassVar[str] = "Krähenbühl and Koltun, Efficient inference in fully connected CRFs, NIPS 2011"
    reconstruction: ClassVar[str] = (
        "the authors' example has two kernels, in space (σ 3, weight 3) and with colour (σ 60 and 20, weight 10), "
        "at the image's size; here one, at half of it"
    )
    presets: ClassVar = {"paper": {"bn": "source", "updates": 10}}

    views: Views = views_option()
    bn: BNMode = bn_option()
    share: float | None = share_option()
    weight: float = option(1.0, "weight of the smoothness", low=0)
    updates: int = option(5, "mean-field updates", low=0)
    scale: float = option(
        0.5, "share of the input's size at which the affinity sees prediction and image", above=0, high=1
    )
    sigma_rgb: float = option(15.0, "width of the affinity in colour, on the 0..255 scale", above=0)
    sigma_xy: float = option(50.0, "width of the affinity in space, in pixels of the input", above=0)

    @property
    def episodic(self) -> bool:  # type: ignore[override]
        return self.bn not in ("running", "train")

    def begin(self, model: Segmenter) -> State:
        return State(buffers=adopt_statistics(model, self.bn, self.share, self))

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        return Objective(self.predict(model, state, batch.images))

    @torch.no_grad()
    def predict(self, model: Segmenter, state: State, images: Tensor) -> Tensor:
        logits = model(images)
        small = resized(logits.float(), self.scale, antialias=False)
        change = self._smoothed(small, images) - small.log_softmax(1)
        change = functional.interpolate(change, logits.shape[2:], mode="bilinear")
        return logits.float().log_softmax(1) + change

    def _smoothed(self, logits: Tensor, images: Tensor) -> Tensor:
        """log Q after the last update, B×C×h×w."""
        affinity = Affinity.from_image(
            functional.interpolate(images, logits.shape[2:], mode="bilinear", antialias=True),
            sigma_rgb=self.sigma_rgb,
            sigma_xy=self.sigma_xy * self.scale,
        )
        unary = logits.log_softmax(1)
        others = (affinity.degree - 1).clamp_min(1e-6)[:, None]
        result = unary
        for _ in range(self.updates):
            beliefs = result.exp()
            result = (unary + self.weight * (affinity.apply(beliefs) - beliefs) / others).log_softmax(1)
        return result
