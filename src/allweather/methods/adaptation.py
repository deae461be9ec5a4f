"""The knobs of adapting that belong to no single method: how often, on what, by which statistics, what is reported."""

from dataclasses import dataclass

import torch

from allweather.errors import SettingsError
from allweather.methods.method import Method, State
from allweather.methods.normalization import BNMode, bn_option, share_option
from allweather.methods.option import option, where
from allweather.methods.views import Views, views_option
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Adaptation(Method):
    """A method that adapts batch by batch; the session acts on these fields, whatever is minimised."""

    iterations: int = option(1, "maximum number of updates per batch", low=1)
    episodic: bool = option(True, "return to the source network after each batch")
    report_after: bool = option(True, "report the prediction made after the last update, not the one before it")
    views: Views = views_option()
    surest: bool = option(
        False,
        "predict by one of the views, that of which the network is surest where it learns, not by the mean over them",
    )
    lookahead: float = option(
        0.0,
        "learning rate of one extra Adam step that only this batch's prediction sees",
        low=0,
        needs=where(report_after=True),
    )
    bn: BNMode = bn_option()
    anchor: float = option(
        0.0, "share of the way back to the source that parameters go after each update, 0..1", low=0, high=1
    )
    share: float | None = share_option()
    adapt_every: int = option(
        1,
        "learn from every n-th batch, from the first on; the others are only predicted",
        low=1,
        needs=where(episodic=False),
    )
    adapt_scale: float = option(
        1.0,
        "share of the images' size at which they are learnt from, 0..1; predictions keep the full size",
        above=0,
        high=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodic and not self.report_after and self.iterations == 1:
            raise SettingsError(
                f"{self.name}: with episodic=true, report_after=false and one update the update would never be seen. "
                "Choose report_after=true, or episodic=false."
            )

    @torch.no_grad()
    def after_update(self, model: Segmenter, state: State) -> None:
        if self.anchor:
            for name, parameter in state.parameters.items():
                parameter.lerp_(state.origin[name], self.anchor)

    @property
    def predicts_as_it_adapts(self) -> bool:
        return self.adapt_scale == 1 and super().predicts_as_it_adapts
