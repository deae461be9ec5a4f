"""SAR: entropy of reliable pixels, minimised where its neighbourhood is flat, with a way back."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import pixel_entropy, reliable
from allweather.methods.method import Batch, Objective, State
from allweather.methods.option import option, where
from allweather.methods.parameters import with_parameters
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Sar(GradientMethod):
    """The entropy of reliable pixels at θ + ε, ε the steepest ascent of length `radius` (Niu et al., Eq. 3 to 6).

    Along a stream the parameters go back to the source when the average entropy falls under `recover`: the sign of
    collapse. The gradient at θ + ε is taken by shifting the parameters within the graph, so nothing has to be undone.
    """

    name: ClassVar[str] = "sar"
    source: ClassVar[str] = "Niu et al., Towards stable test-time adaptation in dynamic wild world, ICLR 2023"
    presets: ClassVar = {
        "paper": {
            "bn": "source",
            "optimizer": "sgd",
            "lr": 2.5e-4,
            "episodic": False,
            "report_after": False,
        }
    }

    lr: float = option(5e-4, "learning rate", low=0)
    margin: float = option(0.4, "pixels count whose entropy is under this share of ln C", low=0)
    radius: float = option(0.05, "length of the step towards higher entropy", low=0)
    recover: float = option(
        0.02,
        "average entropy along the stream, in nats, under which the source comes back",
        low=0,
        needs=where(episodic=False),
    )
    decay: float = option(0.9, "of that average", low=0, high=1, needs=where(episodic=False))

    def begin(self, model: Segmenter) -> State:
        state = super().begin(model)
        state.origin = {name: parameter.detach().clone() for name, parameter in state.parameters.items()}
        device = next(iter(state.parameters.values())).device
        state.memory["entropy"] = torch.full((1,), -1.0, device=device, dtype=torch.float32)
        return state

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        first = self._loss(logits)
        if first is None or self._collapsed(state, first.detach()):
            return Objective(logits)
        parameters = list(state.parameters.values())
        gradients = torch.autograd.grad(first, parameters, allow_unused=True)
        found = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        length = torch.stack([gradient.norm() for gradient in found]).norm() + 1e-12
        steps = [gradient * (self.radius / length) for gradient in found]
        shifted = {name: p + step for (name, p), step in zip(state.parameters.items(), steps, strict=True)}
        second = self._loss(with_parameters(model, shifted, batch.images))
        return Objective(logits, first if second is None else second, watched=first.detach())

    def _loss(self, logits: Tensor) -> Tensor | None:
        entropy = pixel_entropy(logits)
        counts = reliable(entropy, self.margin, logits.shape[1])
        return entropy[counts].mean() if counts.any() else None

    @torch.no_grad()
    def _collapsed(self, state: State, loss: Tensor) -> bool:
        """Whether the average entropy has fallen too far; the source's parameters are then back."""
        average = state.memory["entropy"]
        average.copy_(loss if average < 0 else self.decay * average + (1 - self.decay) * loss)
        if self.episodic or average >= self.recover:
            return False
        for name, value in state.origin.items():
            state.parameters[name].copy_(value)
        average.fill_(-1)
        return True
