"""DIGA: statistics mixed with the image's, and a classifier of class prototypes from confident pixels; no gradient."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from allweather.methods.method import Batch, Method, Objective, State
from allweather.methods.normalization import BNMode, adopt_statistics, bn_option, share_option
from allweather.methods.option import option
from allweather.methods.views import Views, views_option
from allweather.models.placing import device_of
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Diga(Method):
    """p = (1 − mixture) · softmax(logits) + mixture · softmax(similarity to prototypes / temperature).

    The prototype of a class is the mean of its confident pixels, averaged along the stream and with the image's own
    (Wang et al., Eq. 5 to 9).

    Preset `paper` has the shares, similarity and averaging of the authors' code, with two differences. Prototypes live
    in the space of logits, which every network has; the authors' live in the features before the classifier. And the
    authors' code moves the prototypes by the ground truth; no method here sees a label, so confident pixels move them,
    as the paper says. An image without a confident pixel is classified by the stream's prototypes alone; until the
    stream has any, the prediction is that of `norm`.
    """

    name: ClassVar[str] = "diga"
    source: ClassVar[str] = "Wang et al., Dynamically instance-guided adaptation, CVPR 2023"
    presets: ClassVar = {
        "paper": {
            "share": 0.2,
            "mixture": 0.8,
            "instance": 0.2,
            "similarity": "distance",
            "averaged": "predictions",
            "temperature": 1.0,
        }
    }

    views: Views = views_option()
    bn: BNMode = bn_option()
    share: float | None = share_option()
    threshold: float = option(
        0.9,
        "minimum confidence of a pixel that counts for its class's prototype, 0..1; lower it for a network that is "
        "never so sure",
        low=0,
        high=1,
    )
    mixture: float = option(0.2, "weight of the prototypes' classifier in the prediction, 0..1", low=0, high=1)
    instance: float = option(0.8, "weight of the image's own prototypes against the stream's, 0..1", low=0, high=1)
    averaged: Literal["prototypes", "predictions"] = option(
        "prototypes", "what that weight averages: the prototypes, or the predictions of both kinds"
    )
    similarity: Literal["cosine", "distance"] = option(
        "cosine", "of a pixel's logits and a prototype: cosine of the centred logits, or minus the Euclidean distance"
    )
    decay: float = option(0.9, "share of themselves that the stream's prototypes keep at each image", low=0, high=1)
    temperature: float = option(0.1, "temperature of the softmax over similarities", above=0)
    episodic: bool = option(False, "forget the prototypes after each batch")

    def begin(self, model: Segmenter) -> State:
        classes = len(model.classes)
        memory = {"prototypes": torch.zeros(classes, classes, device=device_of(model), dtype=torch.float32)}
        return State(buffers=adopt_statistics(model, self.bn, self.share, self), memory=memory)

    @torch.no_grad()
    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images).float()
        own = self._own(self._features(logits), logits.softmax(1))
        _take_up(state.memory["prototypes"], own, self.decay)
        return Objective(self._mixed(logits, state.memory["prototypes"]))

    @torch.no_grad()
    def predict(self, model: Segmenter, state: State, images: Tensor) -> Tensor:
        return self._mixed(model(images).float(), state.memory["prototypes"])

    def _mixed(self, logits: Tensor, stream: Tensor) -> Tensor:
        """Log-probabilities B×C×H×W of the network and the prototypes together."""
        probabilities, features = logits.softmax(1), self._features(logits)
        own = self._own(features, probabilities)
        stream = torch.where(_known(stream)[:, None], stream, own)
        if _known(stream).any():
            probabilities = torch.lerp(probabilities, self._classify(features, own, stream), self.mixture)
        return probabilities.clamp_min(1e-12).log()

    def _features(self, logits: Tensor) -> Tensor:
        """What prototypes are means of, B×C×H×W: logits; centred per pixel and of length 1 for cosines."""
        if self.similarity == "distance":
            return logits
        return functional.normalize(logits - logits.mean(1, keepdim=True), dim=1)

    def _own(self, features: Tensor, probabilities: Tensor) -> Tensor:
        """C×F, the mean features of the images' confident pixels; 0 for classes without one."""
        confidence, labels = probabilities.max(1)
        members = functional.one_hot(labels, probabilities.shape[1]).movedim(3, 1)
        members = members * (confidence >= self.threshold)[:, None]
        count = members.sum((0, 2, 3))
        with torch.autocast(features.device.type, enabled=False):  # einsum would round what goes on along the stream
            return torch.einsum("bchw,bfhw->cf", members.to(features), features) / count.clamp_min(1)[:, None]

    def _classify(self, features: Tensor, own: Tensor, stream: Tensor) -> Tensor:
        """B×C×H×W, probabilities by both kinds of prototypes; the image's own count where there are any."""
        seen = _known(own)
        if self.averaged == "prototypes":
            return self._by(features, torch.where(seen[:, None], torch.lerp(stream, own, self.instance), stream))
        if not seen.any():
            return self._by(features, stream)
        return torch.lerp(self._by(features, stream), self._by(features, own), self.instance)

    def _by(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """B×C×H×W, softmax of the similarities to prototypes C×F; 0 for classes that have none."""
        if self.similarity == "cosine":
            with torch.autocast(features.device.type, enabled=False):
                similar = torch.einsum("bfhw,cf->bchw", features, functional.normalize(prototypes, dim=1))
        else:
            pixels = features.movedim(1, 3)  # B×H×W×F
            apart = torch.cdist(pixels.flatten(1, 2), prototypes, compute_mode="donot_use_mm_for_euclid_dist")
            similar = -apart.unflatten(1, pixels.shape[1:3]).movedim(3, 1)
        similar = similar / self.temperature
        return similar.masked_fill(~_known(prototypes)[None, :, None, None], -torch.inf).softmax(1)


def _known(prototypes: Tensor) -> Tensor:
    """C, which classes have a prototype."""
    return prototypes.abs().sum(1) > 0


def _take_up(stream: Tensor, own: Tensor, decay: float) -> None:
    """Moves the stream's prototypes C×F, in place, by the images' own."""
    seen, known = _known(own)[:, None], _known(stream)[:, None]
    stream.copy_(torch.where(seen & known, torch.lerp(own, stream, decay), torch.where(seen, own, stream)))
