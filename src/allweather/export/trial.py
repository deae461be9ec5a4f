"""One picture through a session's network before and after it is handed over: what mixes, and whether both agree."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from allweather.errors import AllWeatherError, NetworkError, first_line
from allweather.export.agreement import disagreement, picture
from allweather.export.image_statistics import mixed_layers
from allweather.finite import all_finite
from allweather.models.deep_copy import deep_copy
from allweather.models.segmenter import Segmenter
from allweather.plugins import FAULTS

_SIZE = (224, 224)  # what transformers of one size take most often


@dataclass(frozen=True, eq=False)
class Trial:
    """What a session's network made of a picture 1×3×H×W.

    Attributes:
        image, logits: the picture, and 1×C×H×W.
        seen: what each layer that mixes normalised, call by call, by the layer's name: shapes and types alone.
    """

    image: Tensor
    logits: Tensor
    seen: dict[str, list[Tensor]]

    @property
    def half(self) -> bool:
        """Whether any of it was in half precision, as under an autocast of the network's own."""
        return any(each.dtype in (torch.float16, torch.bfloat16) for inputs in self.seen.values() for each in inputs)

    def mixes(self, name: str) -> bool:
        """Whether the layer takes statistics of a picture: it is used, and not for one row a picture, as after pooling.

        Raises:
            NetworkError: where it sees parts of a picture as a batch.
        """
        shapes = [each.shape for each in self.seen[name]]
        if stacked := next((shape for shape in shapes if len(shape) > 2 and shape[0] > 1), None):
            raise NetworkError(
                f"{name} sees one picture as a batch, {'×'.join(map(str, stacked))}: a hook cannot tell it from "
                "several. Take statistics='stream'."
            )
        return any(len(shape) > 2 or shape[0] > 1 for shape in shapes)

    def check(self, model: Segmenter) -> None:
        """Refuses a network to be handed over that predicts otherwise.

        Raises:
            NetworkError: saying by how much.
        """
        try:
            what = disagreement(_seen(deep_copy(model, {}), self.image), self.logits, half=self.half)
        except AllWeatherError:
            raise
        except FAULTS as error:
            what = first_line(error)
        if what:
            raise NetworkError(
                f"{model.name}: with a hook before each BatchNorm layer it would predict otherwise than the session "
                f"({what}), as where a layer changes its input before it normalises. Take statistics='stream'."
            )


def tried(model: Segmenter, size: tuple[int, int] | None) -> Trial | None:
    """A picture through a copy of a session's segmenter on the CPU; None where it does not take one of that size.

    Args:
        size: (width, height); None for one that most networks take.
    """
    model, image = deep_copy(model, {}), picture(size or _SIZE)
    seen: dict[str, list[Tensor]] = {}
    for name, (layer, _) in mixed_layers(model.network).items():
        seen[name] = []
        layer.normalised = partial(_noted, layer.normalised, seen[name])  # type: ignore[method-assign]
    try:
        logits = _seen(model, image)
    except FAULTS:  # of a network of another size alone, say
        return None
    return Trial(image, logits, seen) if all_finite(logits) else None


def _noted(normalised: Callable[..., Tensor], seen: list[Tensor], input: Tensor, own: Any = None) -> Tensor:
    seen.append(input.to("meta"))  # its shape and type
    return normalised(input, own)


def _seen(model: Segmenter, image: Tensor) -> Tensor:
    """Logits under the same random numbers each time; of a copy, as a pass may leave something behind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits: Tensor = model.eval()(image)
    return logits
