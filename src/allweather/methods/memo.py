"""MEMO: the mean prediction over random views of one image, made sure of itself."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from allweather.methods.gradient import GradientMethod
from allweather.methods.method import Batch, Objective, State, option
from allweather.methods.views import recoloured, view_logits
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Memo(GradientMethod):
    """Minimises the entropy of the marginal over views, per pixel (Zhang et al., Eq. 4).

    Views are recoloured at random and mirrored by turns, so that pixels can be brought back onto each other.
    """

    name: ClassVar[str] = "memo"
    source: ClassVar[str] = "Zhang et al., MEMO: test time robustness via adaptation and augmentation, NeurIPS 2022"
    presets: ClassVar = {"paper": {"parameters": "all", "lr": 1e-5, "share": 1 / 17}}

    lr: float = option(5e-4, "learning rate")
    views: int = option(4, "random views per update")
    strength: float = option(0.3, "how far brightness, contrast and gamma are drawn, 0..1")

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        mean = logits.float().softmax(1)
        for view in range(self.views):
            seen = view_logits(model, recoloured(batch.images, self.strength), mirror=view % 2 == 0)
            mean = mean + seen.float().softmax(1)
        mean = mean / (self.views + 1)
        entropy = -(mean * mean.clamp_min(1e-12).log()).sum(1).mean()
        return Objective(logits, torch.as_tensor(entropy))
