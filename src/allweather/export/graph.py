"""A segmenter as one graph that takes pictures of any size: what its Python decides by a size is arithmetic here."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.models.outputs import find_logits, log_of, unmasked
from allweather.models.scaling import resampled, scaled
from allweather.models.segmenter import Segmenter

INPUT, OUTPUT = "image", "logits"


class Graph(nn.Module):
    """An RGB image 1×3×H×W in [0, 1] to logits 1×C×H×W, as the segmenter gives them, without a branch on H or W.

    Windows are left out: an image is seen whole.

    Args:
        model: in ordinary layers.
        example: an image; whether the network enlarges its logits itself is seen on them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Segmenter, example: Tensor) -> None:
        super().__init__()
        self.model, self.facts = model, model.preprocessing
        self.register_buffer("mean", torch.tensor(self.facts.mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(self.facts.std, dtype=torch.float32).view(1, 3, 1, 1))
        seen = self._prepared(example)
        self._enlarges = self._logits(seen).shape[-2:] == seen.shape[-2:]

    def forward(self, image: Tensor) -> Tensor:
        seen = self._prepared(image)
        logits = self._logits(seen)
        if self.facts.logit_weights:
            logits = logits * logits.new_tensor(self.facts.logit_weights).view(1, -1, 1, 1)
        if self.facts.probabilities:
            logits = logits.softmax(1)
        if not self._enlarges:
            logits = self._resampled(logits, seen.shape[-2:])
        if self.facts.size_multiple > 1:
            for axis in (2, 3):
                logits = _cut(logits, axis, scaled(image.shape[axis], self.facts.input_scale))
        if self.facts.input_scale != 1.0:
            logits = self._resampled(logits, image.shape[-2:])
        return log_of(logits) if self.facts.probabilities else logits

    def _prepared(self, image: Tensor) -> Tensor:
        """What the network sees: scaled, normalised, edges repeated up to a multiple, the enhancer's output added."""
        image = resampled(image, self.facts.input_scale)
        image = (image.flip(1) if self.facts.bgr else image) * self.facts.value_range
        seen = (image - self.mean) / self.std
        if self.facts.size_multiple > 1:
            for axis in (2, 3):
                seen = self._padded(seen, axis)
        return seen if self.model.enhancer is None else seen + self.model.enhancer(seen)

    def _padded(self, values: Tensor, axis: int) -> Tensor:
        multiple, side = self.facts.size_multiple, values.shape[axis]
        places = torch.arange((side + multiple - 1) // multiple * multiple, device=values.device)
        return values.index_select(axis, places.clamp(max=side - 1))

    def _logits(self, seen: Tensor) -> Tensor:
        model = self.model
        classes = len(model.classes)
        logits = find_logits(model.network(seen), model.output, classes + model.extra_logits, model.name)
        logits = logits if logits.dtype == seen.dtype else logits.to(seen.dtype)
        logits = logits[:, :classes] if model.extra_logits else logits
        return log_of(logits) if model.probabilities else unmasked(logits) if model._masks else logits

    def _resampled(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        aligned = self.facts.align_corners
        return functional.interpolate(logits, list(size), mode="bilinear", align_corners=aligned)


def _cut(values: Tensor, axis: int, length: int) -> Tensor:
    """The first `length` along the axis; a slice would make the graph depend on whether anything is cut off."""
    return values.index_select(axis, torch.arange(length, device=values.device))
