"""The network as it came: the row every other method is compared with."""

from dataclasses import dataclass
from typing import ClassVar

from allweather.methods.method import Batch, Method, Objective, State
from allweather.methods.views import Views, views_option
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True, kw_only=True)
class Source(Method):
    """No adaptation."""

    name: ClassVar[str] = "source"
    source: ClassVar[str] = "the network without adaptation"
    presets: ClassVar = {"paper": {}}

    views: Views = views_option()

    def begin(self, model: Segmenter) -> State:
        return State()

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        return Objective(self.predict(model, state, batch.images))
