"""TENT: fully test-time adaptation by entropy minimisation."""

from dataclasses import dataclass
from typing import ClassVar

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import mean_entropy
from allweather.methods.method import Batch, Objective, State
from allweather.methods.option import option
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Tent(GradientMethod):
    """Minimises the mean entropy of the prediction over affine norm parameters (Wang et al., Eq. 1).

    The published form goes on along the stream in plain batch statistics and reports the prediction made before
    the update; `episodic` returns to the source after each batch.
    """

    name: ClassVar[str] = "tent"
    source: ClassVar[str] = "Wang et al., Tent: fully test-time adaptation by entropy minimization, ICLR 2021"
    presets: ClassVar = {
        "paper": {"bn": "batch", "lr": 1e-3, "episodic": False, "report_after": False},
    }

    lr: float = option(5e-4, "learning rate", low=0)

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        return Objective(logits, mean_entropy(logits))
