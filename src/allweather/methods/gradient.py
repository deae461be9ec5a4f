"""What every method that takes gradient steps has in common: what moves, by which optimizer, how far."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from allweather.methods.adaptation import Adaptation
from allweather.methods.method import State
from allweather.methods.normalization import adopt_statistics
from allweather.methods.optimizers import SGD, Adam
from allweather.methods.option import SEVERAL_UPDATES, option, where
from allweather.methods.parameters import select_parameters, values_of
from allweather.models.segmenter import Segmenter


def relative_option(default: bool) -> Any:
    """The field `relative`: what a rate is a share of (Shazeer and Stern, Adafactor, ICML 2018, §8)."""
    text = "learning rate and lookahead are shares of each moved tensor's root mean square in the source network"
    return option(default, text, absent=False, before="absolute steps")


@dataclass(frozen=True, kw_only=True)
class GradientMethod(Adaptation):
    """A method that moves parameters down the gradient of a loss."""

    parameters: str = option(
        "norm-affine",
        "what moves: all, norm-affine, norm-affine-late (the later half of the norm layers), logit-bias (one number "
        "per class), or a pattern over names",
    )
    optimizer: Literal["adam", "sgd"] = option("adam", "optimizer")
    lr: float = option(1e-3, "learning rate", low=0)
    relative: bool = relative_option(False)
    momentum: float = option(0.9, "SGD's momentum, or Adam's first beta", low=0, high=0.9999, needs=SEVERAL_UPDATES)
    weight_decay: float = option(0.0, "weight decay", low=0)
    schedule: Literal["constant", "poly"] = option(
        "constant", "learning rate over updates; poly: (1 - t/horizon)^0.9", needs=SEVERAL_UPDATES
    )
    horizon: int = option(1000, "updates until poly reaches zero", low=1, needs=where(schedule="poly"))

    def begin(self, model: Segmenter) -> State:
        chosen = select_parameters(model, self.parameters, self.name)
        buffers = adopt_statistics(model, self.bn, self.share, self)
        return State(parameters=chosen, buffers=buffers, origin=values_of(chosen) if self.anchor else {})

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer == "sgd":
            return SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        betas = (float(self.momentum), 0.999)
        return Adam(parameters, lr=self.lr, betas=betas, weight_decay=self.weight_decay, fused=True)

    def learning_rate(self, update: int) -> float:
        if self.schedule == "constant":
            return self.lr
        return self.lr * max(0.0, 1.0 - update / self.horizon) ** 0.9
