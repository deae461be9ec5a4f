"""Shift detection: how far images lie from the source domain, or from a session's first ones, without a label."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from allweather.errors import NetworkError, SettingsError, check_known
from allweather.methods.moments import Seen, moments, pooled
from allweather.methods.normalization import keeps_statistics
from allweather.methods.option import check_ranges, option
from allweather.methods.settings import check_types
from allweather.session.adapted import AdaptedNetwork

Reference = Literal["auto", "source", "start"]
Moments = tuple[Tensor, Tensor]  # mean and variance per channel


@dataclass(frozen=True)
class Shift:
    """When images count as shifted, so that adapting to them is worth its cost.

    The distance is a squared Hellinger distance, 0..1, between two normal distributions per channel: the images'
    statistics at the network's first layers, and a reference's. It is averaged over the channels. It costs one forward
    pass of the source network, which is all that an image without a shift takes.

    Attributes:
        threshold: smoothed distance above which images are adapted to, 0..1.
        layers: number of the network's first layers that are compared: inputs of BatchNorm layers, or outputs of
            convolutions in a network without BatchNorm.
        reference: `source`: the running statistics of BatchNorm. `start`: the average over the session's first `start`
            batches, which count as ordinary. `auto`: `source` where the network has BatchNorm, else `start`.
        start: number of batches that the reference `start` is made of.
        smoothing: share of itself that the distance keeps from batch to batch, 0..1.

    Raises:
        SettingsError: for a value of another type, or outside its range.
    """

    threshold: float = option(0.03, low=0, high=1)
    layers: int = option(1, low=1)
    reference: Reference = "auto"
    start: int = option(5, low=1)
    smoothing: float = option(0.5, low=0, high=1)

    def __post_init__(self) -> None:
        check_known("reference of a shift", self.reference, get_args(Reference))
        check_types(self)
        check_ranges(self, "Shift")


class ShiftDetector:
    """Looks at each batch before it is adapted to; everything it remembers is saved, resumed and reset.

    Raises:
        SettingsError: for a reference that the network does not have.
        NetworkError: for a network without layers that could be compared.
    """

    def __init__(self, shift: Shift, adapted: AdaptedNetwork) -> None:
        self.shift, self._adapted = shift, adapted
        norms = [m for m in adapted.model.network.modules() if keeps_statistics(m)]
        convolutions = [m for m in adapted.model.network.modules() if isinstance(m, nn.Conv2d)]
        self._inputs, self._candidates = bool(norms), norms or convolutions
        self._places: list[int] = []  # of the layers that are compared, among the candidates; known from the first look
        if not self._candidates:
            raise NetworkError(
                f"shift detection looks at BatchNorm or convolution layers, and {adapted.model.name} has none. "
                "Adapt always."
            )
        if shift.reference == "source" and not norms:
            raise SettingsError(
                f"shift detection: {adapted.model.name} has no BatchNorm statistics of its source domain. "
                "Choose the reference 'start'."
            )
        self._from_start = shift.reference == "start" or not norms
        # copies: the layers' own buffers may move
        self._source = [] if self._from_start else [_running(layer) for layer in norms]
        self.start()

    def start(self) -> None:
        """Before the first image."""
        self._seen, self.level = 0, -1.0  # batches in the reference; the smoothed distance, negative before the first
        self._learnt: list[Moments] = []

    def look(self, images: Tensor) -> tuple[Tensor, bool]:
        """The unadapted prediction B×C×H×W and whether the images B×3×H×W have shifted."""
        with self._watched() as found:
            logits = self._adapted.source_logits(images)
        moments = self._of_layers({index: pooled(seen) for index, seen in found.items()})
        if self._from_start and self._seen < self.shift.start:
            self._learn(moments)
            return logits, False
        reference = self._learnt if self._from_start else [self._source[place] for place in self._places]
        pairs = zip(moments, reference, strict=True)
        distance = float(torch.stack([hellinger(now, then) for now, then in pairs]).mean())
        keep = self.shift.smoothing if self.level >= 0 else 0.0
        self.level = keep * self.level + (1 - keep) * distance
        return logits, self.level > self.shift.threshold

    def way_back(self) -> Callable[[], None]:
        """What makes the detector again as it is now."""
        seen, level, learnt = self._seen, self.level, self._learnt

        def go_back() -> None:
            self._seen, self.level, self._learnt = seen, level, learnt

        return go_back

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name."""
        found = {"shift.seen": torch.tensor(self._seen), "shift.level": torch.tensor(self.level, dtype=torch.float64)}
        if self._from_start:
            for index, (mean, var) in enumerate(self._learnt):
                found |= {f"shift.mean{index}": mean, f"shift.var{index}": var}
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes up what `tensors` gave."""
        self.start()
        self._seen, self.level = int(tensors["shift.seen"]), float(tensors["shift.level"])
        if self._from_start and self._seen:
            device = self._adapted.device()
            self._learnt = [
                (tensors[f"shift.mean{index}"].to(device), tensors[f"shift.var{index}"].to(device))
                for index in range(sum(name.startswith("shift.mean") for name in tensors))
            ]

    def _learn(self, moments: list[Moments]) -> None:
        self._seen += 1
        if self._seen == 1:
            self._learnt = moments
            return
        self._learnt = [
            (torch.lerp(mean, new_mean, 1 / self._seen), torch.lerp(var, new_var, 1 / self._seen))
            for (mean, var), (new_mean, new_var) in zip(self._learnt, moments, strict=True)
        ]

    def _of_layers(self, found: dict[int, Moments]) -> list[Moments]:
        """The moments of the layers that are compared: the first that run at all, auxiliary heads may not.

        Raises:
            NetworkError: where none does.
        """
        self._places = self._places or sorted(found)[: self.shift.layers]
        if not self._places or not found.keys() >= set(self._places):
            kind = "BatchNorm" if self._inputs else "convolution"
            raise NetworkError(
                f"shift detection compares the inputs of {kind} layers, and of {self._adapted.model.name} those that "
                "are compared do not run with each image. Adapt always."
            )
        return [found[place] for place in self._places]

    @contextmanager
    def _watched(self) -> Iterator[dict[int, list[Seen]]]:
        """Collects what the layers see in the first pass of the network, in which they may be called several times.

        The hooks are on the session's copy, and go again. Before the first look nobody knows which layers run: all are
        watched.
        """
        found: dict[int, list[Seen]] = {}
        passes = 0

        def keep(index: int, values: Tensor) -> None:
            if not passes:
                seen = Seen(*moments(values.detach().float()), values.numel() // values.shape[1])
                found.setdefault(index, []).append(seen)

        def count(*_: Any) -> None:
            nonlocal passes
            passes += 1

        def watch(index: int) -> Callable[..., None]:
            def hook(layer: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
                keep(index, (inputs or tuple(named.values()))[0] if self._inputs else output)

            return hook

        hooks = [
            self._candidates[index].register_forward_hook(watch(index), with_kwargs=True)
            for index in self._places or range(len(self._candidates))
        ]
        hooks.append(self._adapted.model.register_forward_hook(count))
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()


def hellinger(one: Moments, other: Moments, floor: float = 1e-5) -> Tensor:
    """Squared Hellinger distance of normal distributions, averaged over channels; means and variances C each."""
    (mean, var), (other_mean, other_var) = one, other
    var, other_var = var + floor, other_var + floor  # channels that never fire have no variance
    total = var + other_var
    overlap = (2 * (var * other_var).sqrt() / total).sqrt() * torch.exp(-0.25 * (mean - other_mean) ** 2 / total)
    return (1 - overlap).mean()


def _running(layer: _BatchNorm) -> Moments:
    mean, var = cast(Tensor, layer.running_mean), cast(Tensor, layer.running_var)
    return mean.detach().float().clone(), var.detach().float().clone()
