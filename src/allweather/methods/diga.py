"""DIGA: statistics mixed with the image's, and a classifier of class prototypes from confident pixels; no gradient."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from allweather.methods.method import Batch, Method, Objective, State
from allweather.methods.normalization import SHARED, BNMode, adopt_statistics
from allweather.methods.option import option
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Diga(Method):
    """p = (1 − mixture) · softmax(logits) + mixture · softmax(cosine to prototypes / temperature).

    A class's prototype is the mean of its confident pixels, averaged along the stream and with the image's own
    (Wang et al., Eq. 5 to 9). Any network gives logits, few give features by a known name, so prototypes live in
    the space of logits, centred per pixel; the paper's live in the features before the classifier.
    """

    name: ClassVar[str] = "diga"
    source: ClassVar[str] = "Wang et al., Dynamically instance-guided adaptation, CVPR 2023"
    presets: ClassVar = {"paper": {"share": 0.2, "mixture": 0.2}}

    bn: BNMode = option("mixed", "BatchNorm statistics: source, mixed, batch, running, train")
    share: float | None = option(
        None, "share of the test batch's statistics, 0..1; none: the network's own", low=0, high=1, needs=SHARED
    )
    threshold: float = option(0.9, "confidence above which a pixel shapes its class's prototype, 0..1", low=0, high=1)
    mixture: float = option(0.2, "share of the prototypes' classifier in the prediction, 0..1", low=0, high=1)
    instance: float = option(0.8, "share of the image's own prototypes beside the stream's, 0..1", low=0, high=1)
    decay: float = option(0.9, "share of themselves that the stream's prototypes keep at each image", low=0, high=1)
    temperature: float = option(0.1, "of the cosine similarities", above=0)
    episodic: bool = option(False, "back to no prototypes after each batch")

    def begin(self, model: Segmenter) -> State:
        classes = len(model.classes)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        memory = {"prototypes": torch.zeros(classes, classes, device=device, dtype=torch.float32)}
        return State(buffers=adopt_statistics(model, self.bn, self.share, self), memory=memory)

    @torch.no_grad()
    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images).float()
        stream, (own, seen) = state.memory["prototypes"], self._own(logits)
        known = stream.abs().sum(1, keepdim=True) > 0
        stream.copy_(torch.where(seen & known, torch.lerp(own, stream, self.decay), torch.where(seen, own, stream)))
        return Objective(self._classified(logits, stream))

    @torch.no_grad()
    def predict(self, model: Segmenter, state: State, images: Tensor) -> Tensor:
        return self._classified(model(images).float(), state.memory["prototypes"])

    def _classified(self, logits: Tensor, stream: Tensor) -> Tensor:
        """Log-probabilities B×C×H×W of both classifiers; `stream`, C×C, are the prototypes so far."""
        probabilities, features = logits.softmax(1), _features(logits)
        own, seen = self._own(logits)
        before = torch.where(stream.abs().sum(1, keepdim=True) > 0, stream, own)
        prototypes = torch.where(seen, torch.lerp(before, own, self.instance), stream)
        known = prototypes.abs().sum(1) > 0
        similar = torch.einsum("bfhw,cf->bchw", features, functional.normalize(prototypes, dim=1)) / self.temperature
        similar = similar.masked_fill(~known[None, :, None, None], -1e4).softmax(1)
        mixed = (1 - self.mixture) * probabilities + self.mixture * similar
        return (mixed if known.any() else probabilities).clamp_min(1e-12).log()

    def _own(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The images' own prototypes, C×C, and which classes have one, C×1."""
        probabilities, features = logits.softmax(1), _features(logits)
        confidence, labels = probabilities.max(1)
        members = (
            functional.one_hot(labels, probabilities.shape[1]).movedim(3, 1) * (confidence > self.threshold)[:, None]
        )
        count = members.sum((0, 2, 3))
        own = torch.einsum("bchw,bfhw->cf", members.to(features), features) / count.clamp_min(1)[:, None]
        return own, count[:, None] > 0


def _features(logits: Tensor) -> Tensor:
    """Unit vectors B×C×H×W in the space of logits, centred per pixel."""
    return functional.normalize(logits - logits.mean(1, keepdim=True), dim=1)
