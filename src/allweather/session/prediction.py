"""What a method predicts for one batch, and what that leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from allweather.finite import all_finite
from allweather.methods.views import View


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a method predicts for one batch; logits B×C×H×W each.

    Attributes:
        logits: what is reported: the mean over the views, or the plain one where there is no other.
        plain: of the images as they are.
        views: of each view that the method looks at, on the images' grid.
        output: what it leaves behind once it has been reported and found good; see `State.output`.
    """

    logits: Tensor
    plain: Tensor
    views: Mapping[View, Tensor] = field(default_factory=dict)
    output: Mapping[str, Tensor] = field(default_factory=dict)

    def finite(self) -> list[Tensor]:
        """Whether the logits are finite, and then each tensor that is left behind: numbers on the device."""
        left = [value for value in self.output.values() if value.is_floating_point()]
        return [all_finite(self.logits), *map(all_finite, left)]
