"""Which of a method's views a prediction is made of: scales that a network refuses, the one view it is surest of."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from allweather.errors import SettingsError
from allweather.methods.losses import pixel_entropy
from allweather.methods.method import Method
from allweather.methods.option import is_set
from allweather.methods.views import View, unscaled

SURE = "view_entropy"  # in `State.output`: a running mean for each view, of a method that predicts by one of them
_SHARE = 0.3  # of the newest batch in it


class Looks:
    """The views of `method`, for images of whatever size."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._refused: set[tuple[View, Sequence[int]]] = set()  # scaled views, and the size of images

    def all(self, size: Sequence[int]) -> tuple[View, ...]:
        """Those that images of a size are looked at in."""
        return tuple(dict.fromkeys(self._each(size)))

    def refuse(self, view: View, size: Sequence[int], error: SettingsError) -> View:
        """The network does not take it: the view without its scale, which it is from now on for images of that size.

        Raises:
            SettingsError: the error, where the view has no scale, or was asked for.
        """
        if view.scale == 1 or is_set(self._method, "views", self._method.views):
            raise error
        warnings.warn(f"{error} It is taken at the images' own size.", stacklevel=2)
        self._refused.add((view, size))
        return unscaled(view)

    def surest(self, sure: Tensor, size: Sequence[int]) -> View:
        """The one of the least mean entropy, by what `surer` gave."""
        return self._each(size)[int(sure.argmin())]

    def surer(self, before: Tensor, seen: Mapping[View, Tensor], size: Sequence[int]) -> Tensor:
        """Mean entropies of the method's views with those of a batch, of logits B×C×H×W; `before` is 0 at first."""
        here = torch.stack([pixel_entropy(seen[view]).mean() for view in self._each(size)])
        return before.lerp(here, _SHARE) if before.any() else here

    def _each(self, size: Sequence[int]) -> list[View]:
        return [unscaled(view) if (view, size) in self._refused else view for view in self._method.looks]
