"""ETA: entropy of reliable pixels of images that are not redundant, the surer the heavier."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import pixel_entropy, reliable
from allweather.methods.method import Batch, Objective, State
from allweather.methods.option import option, where
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Eta(GradientMethod):
    """Σ_i w_i H(p_i) over reliable pixels, w_i = exp(margin·ln C − H_i); images like those before add nothing.

    EATA's second part, the Fisher penalty, needs images of the source domain: the method `eata`.
    """

    name: ClassVar[str] = "eta"
    source: ClassVar[str] = "Niu et al., Efficient test-time model adaptation without forgetting, ICML 2022, Eq. 2 to 6"
    presets: ClassVar = {"paper": {"bn": "batch", "episodic": False, "report_after": False, "lr": 2.5e-4}}

    lr: float = option(5e-4, "learning rate", low=0)
    margin: float = option(0.4, "pixels count whose entropy is under this share of ln C", low=0)
    redundancy: float = option(
        0.05,
        "along a stream, images count whose mean prediction's cosine to the average so far is under 1 minus this",
        high=2,
        needs=where(episodic=False),
    )
    decay: float = option(
        0.9, "of the average of mean predictions along a stream", low=0, high=1, needs=where(episodic=False)
    )

    def begin(self, model: Segmenter) -> State:
        state = super().begin(model)
        device = next(iter(state.parameters.values())).device
        state.memory["mean"] = torch.zeros(len(model.classes), device=device, dtype=torch.float32)
        return state

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        entropy = pixel_entropy(logits)
        counts = reliable(entropy, self.margin, logits.shape[1])
        if not self.episodic:
            counts = counts & self._novel(logits, state)[:, None, None]
        if not counts.any():
            return Objective(logits)
        weights = (self.margin * log(logits.shape[1]) - entropy.detach()).exp()
        return Objective(logits, (weights * entropy)[counts].mean())

    @torch.no_grad()
    def _novel(self, logits: Tensor, state: State) -> Tensor:
        """B, which images differ from the stream so far; the average takes them up."""
        means = logits.float().softmax(1).mean((2, 3))
        average = state.memory["mean"]
        if not average.any():
            average.copy_(means.mean(0))
            return torch.ones(len(means), dtype=torch.bool, device=means.device)
        novel = functional.cosine_similarity(means, average[None], dim=1) < 1 - self.redundancy
        if novel.any():
            average.lerp_(means[novel].mean(0), 1 - self.decay)
        return novel
