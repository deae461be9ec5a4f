"""SAR: entropy of reliable pixels, minimised where its neighbourhood is flat, with a way back."""

import logging
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import pixel_entropy, reliable
from allweather.methods.method import Batch, Objective, State
from allweather.methods.normalization import further_passes
from allweather.methods.option import option, where
from allweather.methods.parameters import having, values_of
from allweather.models.gradients import gradients_of
from allweather.models.placing import device_of
from allweather.models.segmenter import Segmenter

LOG = logging.getLogger(__name__)
NONE = -1.0  # the average before its first value


@dataclass(frozen=True, kw_only=True)
class Sar(GradientMethod):
    """The entropy of reliable pixels at θ + ε, ε the steepest ascent of length `radius` (Niu et al., Eq. 3 to 6).

    Pixels count that are reliable at θ and still at θ + ε. Along a stream an average of that second entropy is kept;
    after each update that leaves it under `recover`, a sign of collapse, the parameters return to the source. As in the
    authors' code the average and the optimizer's momentum stay, so they return again until the average has risen.

    `recover` is the authors' for 1000 classes, in nats. Of few classes a sure network lies under it and always returns
    (logged at INFO; the decision is `accepted`); a lower one lets it learn.

    The authors leave out the last stage of ResNet and ViT by name; here every normalisation layer moves. Where no pixel
    counts nothing is learnt; the authors' code makes a step of momentum there. The gradient at θ + ε is taken by
    shifting the parameters within the graph.
    """

    name: ClassVar[str] = "sar"
    source: ClassVar[str] = "Niu et al., Towards stable test-time adaptation in dynamic wild world, ICLR 2023"
    presets: ClassVar = {
        "paper": {
            "bn": "batch",
            "optimizer": "sgd",
            "lr": 2.5e-4,
            "episodic": False,
            "report_after": False,
        }
    }

    lr: float = option(5e-4, "learning rate", low=0)
    margin: float = option(0.4, "maximum entropy of a pixel that counts, as a share of ln C", low=0)
    radius: float = option(0.05, "length of the step towards higher entropy", low=0)
    recover: float = option(
        0.2,
        "minimum average entropy along the stream, in nats (no share of ln C); below it the source comes back",
        low=0,
        needs=where(episodic=False),
    )
    decay: float = option(
        0.9, "share of itself that this average keeps at each update, 0..1", low=0, high=1, needs=where(episodic=False)
    )

    def begin(self, model: Segmenter) -> State:
        state = super().begin(model)
        state.origin = values_of(state.parameters)
        state.memory["entropy"] = torch.full((1,), NONE, device=device_of(model), dtype=torch.float32)
        return state

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        entropy = pixel_entropy(logits)
        counts = self._reliable(entropy, logits)
        first = _mean(entropy, counts)
        with further_passes(model), having(state.parameters, self._steepest(model, state, first)):
            uphill = model(batch.images)
            entropy = pixel_entropy(uphill)
            counts = counts & self._reliable(entropy, uphill)
            if not counts.any():
                return Objective(logits)
            second = _mean(entropy, counts)
            found = gradients_of(second, model, state.parameters)  # there: checkpoints compute activations once more
        second = second.detach()
        if not self.episodic:
            self._follow(state.memory["entropy"], second)
        # of the second's value and gradient, at θ
        loss = second + sum(((p - p.detach()) * found[name]).sum() for name, p in state.parameters.items())
        return Objective(logits, loss, watched=first.detach())

    @torch.no_grad()
    def after_update(self, model: Segmenter, state: State) -> None:
        super().after_update(model, state)
        average = state.memory["entropy"]
        if not self.episodic and NONE < average < self.recover:
            LOG.info("sar: mean entropy %.3f is below recover=%g: the source comes back", average.item(), self.recover)
            for name, value in state.origin.items():
                state.parameters[name].copy_(value)

    def _reliable(self, entropy: Tensor, logits: Tensor) -> Tensor:
        return reliable(entropy, self.margin, logits.shape[1])

    def _steepest(self, model: Segmenter, state: State, loss: Tensor) -> dict[str, Tensor]:
        """The parameters, one step of length `radius` up the loss."""
        found = gradients_of(loss, model, state.parameters)
        length = torch.stack([gradient.norm() for gradient in found.values()]).norm() + 1e-12
        return {name: p + found[name] * (self.radius / length) for name, p in state.parameters.items()}

    def _follow(self, average: Tensor, entropy: Tensor) -> None:
        average.copy_(torch.where(average == NONE, entropy, self.decay * average + (1 - self.decay) * entropy))


def _mean(entropy: Tensor, counts: Tensor) -> Tensor:
    """The mean where it counts; 0, without a gradient, where nothing does."""
    return torch.where(counts, entropy, 0).sum() / counts.sum().clamp_min(1)
