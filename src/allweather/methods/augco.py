"""AugCo: pixels teach where two views agree on their class or are sure of it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import IGNORED
from allweather.methods.method import Batch, Objective, State
from allweather.methods.normalization import further_passes
from allweather.methods.option import option
from allweather.methods.views import recoloured, view_logits
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Augco(GradientMethod):
    """Cross-entropy of a recoloured, mirrored view to the plain view's classes at reliable pixels.

    Reliable are pixels on whose class the views agree, or whose confidence is above `threshold` (Prabhu et al.,
    section 3).
    """

    name: ClassVar[str] = "augco"
    source: ClassVar[str] = (
        "Prabhu et al., Augmentation consistency-guided self-training for source-free adaptation, 2021"
    )
    reconstruction: ClassVar[str] = "the authors train over a dataset of the target, and published no code"
    presets: ClassVar = {"paper": {"bn": "batch", "parameters": "all", "lr": 2.5e-6, "episodic": False}}

    lr: float = option(5e-4, "learning rate", low=0)
    threshold: float = option(
        0.8, "confidence above which a pixel is learnt from although the views differ, 0..1", low=0, high=1
    )
    strength: float = option(0.3, "strength of random changes of brightness, contrast and gamma, 0..1", low=0, high=1)

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        with further_passes(model):
            other = view_logits(model, recoloured(batch.images, self.strength, state.generator), mirror=True).float()
        with torch.no_grad():
            confidence, labels = logits.float().softmax(1).max(1)
            counts = (other.max(1).indices == labels) | (confidence > self.threshold)
            labels = labels.masked_fill(~counts, IGNORED)
        if not counts.any():
            return Objective(logits)
        return Objective(logits, functional.cross_entropy(other, labels, ignore_index=IGNORED))
