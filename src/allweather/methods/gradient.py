"""What every method that takes gradient steps has in common: what moves, how far, how often."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from allweather.errors import AllWeatherError
from allweather.methods.method import Method, State
from allweather.methods.normalization import SHARED, BNMode, adopt_statistics
from allweather.methods.option import SEVERAL_UPDATES, option, where
from allweather.methods.parameters import select_parameters
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class GradientMethod(Method):
    """A method that moves parameters down the gradient of a loss."""

    parameters: str = option("norm-affine", "what moves: all, norm-affine, or a pattern over parameter names")
    optimizer: Literal["adam", "sgd"] = option("adam", "optimizer")
    lr: float = option(1e-3, "learning rate", low=0)
    momentum: float = option(0.9, "SGD's momentum, or Adam's first beta", low=0, high=0.9999, needs=SEVERAL_UPDATES)
    weight_decay: float = option(0.0, "weight decay", low=0)
    schedule: Literal["constant", "poly"] = option(
        "constant", "learning rate over updates; poly: (1 - t/horizon)^0.9", needs=SEVERAL_UPDATES
    )
    horizon: int = option(1000, "updates until poly reaches zero", low=1, needs=where(schedule="poly"))
    iterations: int = option(1, "most updates per batch", low=1)
    episodic: bool = option(True, "back to the source network after each batch")
    report_after: bool = option(True, "report the prediction made after the last update, not the one before it")
    mirror: bool = option(False, "predict the mean over the image and its mirror image")
    lookahead: float = option(
        0.0,
        "rate of one more step, as of a fresh Adam, that only this batch's prediction sees",
        low=0,
        needs=where(report_after=True),
    )
    bn: BNMode = option("mixed", "BatchNorm statistics: source, mixed, batch, running, train")
    anchor: float = option(
        0.0, "share of the way back to the source that parameters go after each update, 0..1", low=0, high=1
    )
    share: float | None = option(
        None, "share of the test batch's statistics, 0..1; none: the network's own", low=0, high=1, needs=SHARED
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodic and not self.report_after and self.iterations == 1:
            raise AllWeatherError(
                f"{self.name}: with episodic=true, report_after=false and one update the update would never be seen. "
                "Choose report_after=true, or episodic=false."
            )

    def begin(self, model: Segmenter) -> State:
        chosen = select_parameters(model, self.parameters, self.name)
        buffers = adopt_statistics(model, self.bn, self.share, self)
        origin = {name: parameter.detach().clone() for name, parameter in chosen.items()} if self.anchor else {}
        return State(parameters=chosen, buffers=buffers, origin=origin)

    @torch.no_grad()
    def after_update(self, model: Segmenter, state: State) -> None:
        if self.anchor:
            for name, parameter in state.parameters.items():
                parameter.lerp_(state.origin[name], self.anchor)

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        return torch.optim.Adam(parameters, lr=self.lr, betas=(self.momentum, 0.999), weight_decay=self.weight_decay)

    def learning_rate(self, update: int) -> float:
        if self.schedule == "constant":
            return self.lr
        return self.lr * max(0.0, 1.0 - update / self.horizon) ** 0.9
