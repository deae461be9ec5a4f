"""Self-adaptive inference: pseudo-labels from several views of one image, learnt by its own copy of the network."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import IGNORED
from allweather.methods.method import Batch, Objective, State
from allweather.methods.normalization import further_passes
from allweather.methods.option import option
from allweather.methods.views import mean_probabilities
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class SelfAdaptive(GradientMethod):
    """Cross-entropy to the classes of the mean over views, where it exceeds a share of that class's best pixel.

    The labels are made once per image by the network as it came (Bahmani et al., section 3.3).

    Preset `paper` has the scales, rate and steps of the authors' evaluation. They also turn the mirrored views gray and
    keep the first stages of their backbone; here views keep their color, and every parameter moves. Theirs mixes 0.1 of
    the image's statistics in for the labels, takes steps on these alone, each of which moves the running ones by 0.1,
    and mixes again to predict: 0.69 is the image's. Here 0.1 is throughout; `bn` train is nearer in steps and
    prediction (0.65), not in the labels.
    """

    name: ClassVar[str] = "self-adaptive"
    source: ClassVar[str] = (
        "Bahmani et al., Semantic self-adaptation: enhancing generalization with a single sample, TMLR 2023"
    )
    presets: ClassVar = {
        "paper": {
            "parameters": "all", "optimizer": "sgd", "lr": 0.05, "momentum": 0.0, "iterations": 10, "share": 0.1,
            "scales": (0.25, 0.5, 0.75),
        }
    }  # fmt: skip

    threshold: float = option(
        0.7, "share of the class's highest confidence in the image that a pixel must exceed", low=0, high=1
    )
    scales: tuple[float, ...] = option((0.75, 1.0, 1.25), "sizes of the views, relative to the image", above=0)

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        labels = batch.once("labels", lambda: self._labels(model, batch))
        if not (labels != IGNORED).any():
            return Objective(logits)
        return Objective(logits, functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED))

    @torch.no_grad()
    def _labels(self, model: Segmenter, batch: Batch) -> torch.Tensor:
        with further_passes(model):
            probabilities = mean_probabilities(model, batch.images, self.scales)
        confidence, labels = probabilities.max(1)
        best = probabilities.amax((2, 3))  # B×C
        needed = self.threshold * best.gather(1, labels.flatten(1)).view_as(labels)
        return labels.masked_fill(confidence <= needed, IGNORED)
