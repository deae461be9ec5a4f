"""MEMO: the mean prediction over random views of one image, made sure of itself."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import entropy
from allweather.methods.method import Batch, Objective, State
from allweather.methods.normalization import further_passes
from allweather.methods.option import option
from allweather.methods.views import recoloured
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Memo(GradientMethod):
    """Minimises the entropy of the marginal over views, per pixel (Zhang et al., Eq. 4).

    Views are recoloured at random and mirrored by turns, so that pixels can be brought back onto each other; the
    authors' AugMix also crops, rotates, shears and moves the image, which is one class to them. Preset `paper` is their
    run of ResNet-50 on ImageNet: 64 views without the image itself in one batch, whose statistics are mixed with a
    prior that counts as 16 images. (They estimate its variance without bias.)
    """

    name: ClassVar[str] = "memo"
    source: ClassVar[str] = "Zhang et al., MEMO: test time robustness via adaptation and augmentation, NeurIPS 2022"
    presets: ClassVar = {
        "paper": {
            "parameters": "all",
            "optimizer": "sgd",
            "lr": 2.5e-4,
            "momentum": 0.0,
            "share": 1 / 17,
            "augmentations": 64,
            "original": False,
            "together": True,
        }
    }

    lr: float = option(5e-4, "learning rate", low=0)
    augmentations: int = option(4, "random views per update", low=1)
    original: bool = option(True, "the image itself counts as one more view")
    together: bool = option(False, "predict the views as one batch, with common BatchNorm statistics")
    strength: float = option(0.3, "strength of random changes of brightness, contrast and gamma, 0..1", low=0, high=1)

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        views = [
            _turned(recoloured(batch.images, self.strength, state.generator), view)
            for view in range(self.augmentations)
        ]
        with further_passes(model):
            seen = model(torch.cat(views)).split(len(batch.images)) if self.together else [model(v) for v in views]
        found = [_turned(one, view) for view, one in enumerate(seen)] + ([logits] if self.original else [])
        mean = torch.stack([one.float().softmax(1) for one in found]).mean(0)
        return Objective(logits, entropy(mean).mean())


def _turned(images: Tensor, view: int) -> Tensor:
    """Every other view mirrored, or mirrored back."""
    return images.flip(3) if view % 2 == 0 else images
