"""Running averages of what BatchNorm layers see along a stream, for networks that are to stand still afterwards."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from allweather.errors import CheckpointError
from allweather.export.image_statistics import mixed_layers
from allweather.methods.moments import pooled

MEMORY = 100  # batches: their plain mean up to here, then an exponential average over about as many
_PREFIX = "statistics."


class StreamAverages:
    """Mean and variance per channel of each layer's input, averaged over the batches that were taken.

    Layers keep the moments of a batch that they take anyway (`TestTimeStatistics.seen`); nothing is computed again. Of
    windows that slide over an image all count.

    Attributes:
        layers: those that take statistics of the batch, by name within the network.
        count: batches taken.
    """

    def __init__(self, network: nn.Module) -> None:
        self.layers = {name: layer for name, (layer, _) in mixed_layers(network).items()}
        self.start()

    def start(self) -> None:
        """As before the first batch."""
        self.count = 0
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self.discard()

    def discard(self) -> None:
        """Forgets what the layers saw since the last batch was taken."""
        for layer in self.layers.values():
            layer.seen = ()

    @torch.no_grad()
    def take(self) -> None:
        """Takes up what the layers saw of a batch, if anything."""
        seen = {name: pooled(layer.seen) for name, layer in self.layers.items() if layer.seen}
        self.discard()
        if not seen:
            return
        self.count += 1
        share = max(1 / self.count, 1 / MEMORY)
        for name, moments in seen.items():
            if name not in self._sums:
                self._sums[name] = (moments[0].clone(), moments[1].clone())
        known = [tensor for name in seen for tensor in self._sums[name]]
        torch._foreach_lerp_(known, [tensor for moments in seen.values() for tensor in moments], share)

    def values(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Mean and variance by layer; a layer that sees one value per channel has none."""
        return self._sums

    def tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors, for a saved session."""
        if not self.count:
            return {}
        named = {f"{_PREFIX}{which}.{name}": each for name, moments in self._sums.items()
                 for which, each in zip(("mean", "var"), moments, strict=True)}  # fmt: skip
        return {f"{_PREFIX}count": torch.tensor(self.count), **named}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Goes on from saved tensors; from nothing where an older version saved none.

        Raises:
            CheckpointError: where a layer has one of two, or they are of another shape.
        """
        found = self._read(saved)
        self.start()
        if found:
            self.count, self._sums = int(saved[f"{_PREFIX}count"]), found

    def check(self, saved: Mapping[str, Tensor]) -> None:
        """Refuses saved tensors that `load` would refuse.

        Raises:
            CheckpointError: as `load`.
        """
        self._read(saved)

    def _read(self, saved: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        if f"{_PREFIX}count" not in saved:
            return {}
        found = {}
        for name, layer in self.layers.items():
            moments = [saved.get(f"{_PREFIX}{which}.{name}") for which in ("mean", "var")]
            if moments == [None, None]:
                continue
            mean, var = moments
            shape, device = layer.running_mean.shape, layer.running_mean.device  # type: ignore[union-attr]
            if mean is None or var is None or mean.shape != shape or var.shape != shape:
                raise CheckpointError(f"expected counters.{_PREFIX}mean.{name} and var of shape {tuple(shape)}.")
            found[name] = (mean.clone().to(device), var.clone().to(device))
        return found
