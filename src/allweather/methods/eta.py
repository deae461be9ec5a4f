"""ETA: entropy of reliable pixels of images that are not redundant, the surer the heavier."""

from dataclasses import dataclass
from math import log
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import pixel_entropy, reliable
from allweather.methods.method import Batch, Objective, State
from allweather.methods.option import option, where
from allweather.models.placing import device_of
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Eta(GradientMethod):
    """Σ_i w_i H(p_i) over reliable pixels, w_i = exp(margin·ln C − H_i); what is like what came before adds nothing.

    A sample of the authors is an image with one class. Preset `paper` takes each pixel for one, as published: along a
    stream it counts if its prediction is nearly orthogonal to the average of those that counted before, which few are.
    By default an image counts as a whole, unless its mean prediction is nearly parallel to the average. EATA's second
    part, the Fisher penalty, needs images of the source domain: the method `eata`.
    """

    name: ClassVar[str] = "eta"
    source: ClassVar[str] = "Niu et al., Efficient test-time model adaptation without forgetting, ICML 2022, Eq. 2 to 6"
    presets: ClassVar = {
        "paper": {
            "bn": "batch",
            "optimizer": "sgd",
            "lr": 2.5e-4,
            "episodic": False,
            "report_after": False,
            "sample": "pixel",
        }
    }

    lr: float = option(5e-4, "learning rate", low=0)
    margin: float = option(0.4, "maximum entropy of a pixel that counts, as a share of ln C", low=0)
    sample: Literal["image", "pixel"] = option(
        "image",
        "what is left out if it is too similar to the stream so far: whole images, or pixels",
        needs=where(episodic=False),
    )
    redundancy: float = option(
        0.05,
        "leave out samples too similar to the average so far: cosine of at least 1 - this (image), or this (pixel)",
        high=2,
        needs=where(episodic=False),
    )
    decay: float = option(
        0.9,
        "share of itself that the average prediction keeps at each update, 0..1",
        low=0,
        high=1,
        needs=where(episodic=False),
    )

    def begin(self, model: Segmenter) -> State:
        state = super().begin(model)
        state.memory["mean"] = torch.zeros(len(model.classes), device=device_of(model), dtype=torch.float32)
        return state

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        entropy = pixel_entropy(logits)
        counts = reliable(entropy, self.margin, logits.shape[1])
        if not self.episodic:
            counts = self._novel(logits, counts, state.memory["mean"])
        if not counts.any():
            return Objective(logits)
        weights = (self.margin * log(logits.shape[1]) - entropy.detach()).exp()
        return Objective(logits, (weights * entropy)[counts].mean())

    @torch.no_grad()
    def _novel(self, logits: Tensor, counts: Tensor, average: Tensor) -> Tensor:
        """Those of the pixels that count, B×H×W, whose sample is unlike the stream so far; the average takes it up."""
        probabilities = logits.float().softmax(1)
        samples = probabilities if self.sample == "pixel" else probabilities.mean((2, 3), keepdim=True)
        taken = counts if self.sample == "pixel" else torch.ones_like(counts[:, :1, :1])
        known = bool(average.any())
        if known:
            alike = functional.cosine_similarity(samples, average[None, :, None, None], dim=1)
            taken = taken & (alike.abs() < self.redundancy if self.sample == "pixel" else alike < 1 - self.redundancy)
        if taken.any():
            found = samples.movedim(1, 3)[taken].mean(0)
            average.copy_(average.lerp(found, 1 - self.decay) if known else found)
        return counts & taken
