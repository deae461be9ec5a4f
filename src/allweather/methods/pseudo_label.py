"""Hard pseudo-labels of confident pixels: the simplest self-training."""

from dataclasses import dataclass
from typing import ClassVar

from torch.nn import functional

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import IGNORED, confident_labels
from allweather.methods.method import Batch, Objective, State
from allweather.methods.option import option
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class PseudoLabel(GradientMethod):
    """Cross-entropy to the network's own classes at pixels whose confidence is above `threshold`."""

    name: ClassVar[str] = "pseudo-label"
    source: ClassVar[str] = "Lee, Pseudo-label, ICML Workshops 2013; hard labels as CoTTA's line of work runs TENT"
    reconstruction: ClassVar[str] = "Lee trains classifiers on true labels too; the rate is CoTTA's for ACDC"
    presets: ClassVar = {
        "paper": {"bn": "source", "lr": 7.5e-6, "threshold": 0.0, "episodic": False, "report_after": False}
    }

    lr: float = option(5e-4, "learning rate", low=0)
    threshold: float = option(0.8, "confidence above which a pixel is learnt from, 0..1", low=0, high=1)

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        labels = confident_labels(logits.float().softmax(1), self.threshold)
        if not (labels != IGNORED).any():
            return Objective(logits)
        return Objective(logits, functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED))
