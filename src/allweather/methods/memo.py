"""MEMO: the mean prediction over random views of one image, made sure of itself."""

from dataclasses import dataclass
from typing import ClassVar

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import entropy
from allweather.methods.method import Batch, Objective, State
from allweather.methods.option import option
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

    lr: float = option(5e-4, "learning rate", low=0)
    views: int = option(4, "random views per update", low=1)
    strength: float = option(0.3, "how far brightness, contrast and gamma are drawn, 0..1", low=0, high=1)

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        mean = logits.float().softmax(1)
        for view in range(self.views):
            seen = view_logits(model, recoloured(batch.images, self.strength, state.generator), mirror=view % 2 == 0)
            mean = mean + seen.float().softmax(1)
        return Objective(logits, entropy(mean / (self.views + 1)).mean())
