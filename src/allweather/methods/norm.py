"""BatchNorm statistics from the test images: prior mixing, plain batch statistics, or a running average."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from allweather.errors import NetworkError
from allweather.methods.method import Batch, Method, Objective, State
from allweather.methods.normalization import adopt_statistics, has_statistics, share_option
from allweather.methods.option import option
from allweather.methods.views import Views, views_option
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Norm(Method):
    """Replaces or mixes the statistics of BatchNorm layers; moves no parameter and needs no gradient.

    A network without BatchNorm statistics is refused: it would predict as the source does.

    Preset `paper` takes each batch, of whatever size, for one sample and lets the source's statistics count as N = 16
    of them, the authors' prior: a share of 1/17. Their code estimates the variance without bias, this one with it:
    1 − 1/n of theirs for n values a channel. Statistics of the batch alone, which TENT's authors call norm, are `bn`
    batch.
    """

    name: ClassVar[str] = "norm"
    source: ClassVar[str] = (
        "Schneider et al., Improving robustness against common corruptions by covariate shift adaptation, NeurIPS 2020"
    )
    presets: ClassVar = {"paper": {"bn": "mixed", "share": 1 / 17}}

    bn: Literal["mixed", "batch", "running"] = option(
        "mixed",
        "statistics: mixed (per batch), batch (the batch's alone), running (an average along the stream)",
    )
    views: Views = views_option()
    share: float | None = share_option()

    @property
    def episodic(self) -> bool:  # type: ignore[override]
        return self.bn != "running"

    def begin(self, model: Segmenter) -> State:
        if not has_statistics(model):
            raise NetworkError(
                f"{self.name} replaces BatchNorm statistics, and {model.name} has none. Choose another method, such as "
                "tent or mall-sample, or source for the network as it is."
            )
        return State(buffers=adopt_statistics(model, self.bn, self.share))

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        return Objective(self.predict(model, state, batch.images))
