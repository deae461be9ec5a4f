"""CoTTA: a student follows its own averaged teacher, which looks at many views where the source is unsure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from allweather.methods.gradient import GradientMethod
from allweather.methods.method import Batch, Objective, State
from allweather.methods.normalization import further_passes
from allweather.methods.option import option
from allweather.methods.parameters import values_of, with_parameters
from allweather.methods.views import mean_probabilities
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Cotta(GradientMethod):
    """Cross-entropy of the student to the EMA teacher's prediction; the teacher's prediction is reported.

    The teacher's prediction is the mean over mirrored and resized views where the source's confidence is under
    `threshold`, pixel by pixel in preset `paper`, on whole images by default. After each update every number of the
    student returns to the source with probability `restore`.

    Preset `paper` is the authors' loop for ACDC, which learns from the teacher's classes. They make the views from
    images in bytes and round them to bytes again; here images are numbers in [0, 1], and are not rounded. They round
    the views' sizes to the nearest pixel, here they are rounded down.
    """

    name: ClassVar[str] = "cotta"
    source: ClassVar[str] = "Wang et al., Continual test-time domain adaptation, CVPR 2022, Eq. 1 to 7"
    presets: ClassVar = {
        "paper": {
            "bn": "source",
            "lr": 7.5e-6,
            "labels": "hard",
            "unsure": "pixel",
            "threshold": 0.69,
            "scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
            "antialias": False,
        }
    }

    without: ClassVar = {"lookahead": "the teacher predicts, and a step of the student does not move it"}

    parameters: str = option("all", "what moves: all, norm-affine, or a pattern over parameter names")
    lr: float = option(1e-5, "learning rate", low=0)
    episodic: bool = option(False, "return to the source network after each batch")
    report_after: bool = option(False, "report the prediction made after the last update, not the one before it")
    teacher: float = option(0.999, "share of itself that the teacher keeps at each update, 0..1", low=0, high=1)
    restore: float = option(
        0.01, "probability that a parameter's value returns to the source after an update, 0..1", low=0, high=1
    )
    labels: Literal["soft", "hard"] = option(
        "soft", "what the student learns: the teacher's probabilities (soft) or classes (hard)"
    )
    unsure: Literal["image", "pixel"] = option(
        "image", "where the teacher uses several views: in whole images, or pixels, of low confidence"
    )
    threshold: float = option(
        0.9, "confidence of the source, 0..1, under which the teacher sees several views", low=0, high=1
    )
    scales: tuple[float, ...] = option(
        (0.75, 1.0, 1.25), "sizes of the teacher's views, relative to the image", above=0
    )
    antialias: bool = option(True, "smooth the image before it is reduced to a smaller view")

    def begin(self, model: Segmenter) -> State:
        state = super().begin(model)
        state.origin = values_of(state.parameters)
        state.memory = {name: value.clone() for name, value in state.origin.items()}
        return state

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        student = model(batch.images).float()
        with further_passes(model):
            target = self._target(model, state, batch.images)
        loss = functional.cross_entropy(student, target if self.labels == "soft" else target.max(1).indices)
        return Objective(_logits(target), loss)

    def predict(self, model: Segmenter, state: State, images: Tensor) -> Tensor:
        return _logits(self._target(model, state, images))

    def deployed(self, state: State) -> Mapping[str, Tensor]:
        """The teacher's parameters; the views of an image that the source is unsure of are left out."""
        return {name: state.memory[name] for name in state.parameters}

    @torch.no_grad()
    def _target(self, model: Segmenter, state: State, images: Tensor) -> Tensor:
        """The teacher's probabilities B×C×H×W."""

        def teacher(view: Tensor) -> Tensor:
            return with_parameters(model, state.memory, view)

        plain = teacher(images).float().softmax(1)
        confidence = with_parameters(model, state.origin, images).float().softmax(1).amax(1, keepdim=True)
        if self.unsure == "image":
            confidence = confidence.mean((2, 3), keepdim=True)
        unsure = confidence < self.threshold
        if not unsure.any():
            return plain
        averaged = mean_probabilities(teacher, images, self.scales, antialias=self.antialias)
        return torch.where(unsure, averaged, plain)

    @torch.no_grad()
    def after_update(self, model: Segmenter, state: State) -> None:
        super().after_update(model, state)
        for name, parameter in state.parameters.items():
            state.memory[name].lerp_(parameter, 1 - self.teacher)
            drawn = torch.rand(
                parameter.shape, generator=state.generator, dtype=parameter.dtype, device=state.generator.device
            )
            parameter.copy_(torch.where(drawn.to(parameter.device) < self.restore, state.origin[name], parameter))


def _logits(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(1e-12).log()
