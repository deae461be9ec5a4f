"""Information maximisation: sure of every pixel, yet of many classes."""

from dataclasses import dataclass
from typing import ClassVar

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import diversity, mean_entropy
from allweather.methods.method import Batch, Objective, State
from allweather.methods.option import option
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class InfoMax(GradientMethod):
    """loss = mean H(p_i) − weight · H(mean p), the mutual information of pixels and classes at weight 1.

    Preset `paper` is that loss at weight 1 under the batch's statistics, along the stream. The authors train all of a
    classifier but its last layer with it, by SGD.
    """

    name: ClassVar[str] = "infomax"
    source: ClassVar[str] = (
        "Liang et al., Do we really need to access the source data? (SHOT), ICML 2020, Eq. 2 and 3, on single images"
    )
    reconstruction: ClassVar[str] = (
        "the authors adapt classifiers in epochs over a dataset, not along a stream of images"
    )
    presets: ClassVar = {"paper": {"bn": "batch", "diversity_weight": 1.0, "episodic": False, "report_after": False}}

    diversity_weight: float = option(0.5, "weight of the entropy of the mean prediction, which is maximised", low=0)

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        spread = diversity(logits.float().softmax(1))
        return Objective(logits, mean_entropy(logits) - self.diversity_weight * spread)
