"""BatchNorm statistics at test time: the source's, the test images', a mixture, or a running average."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from allweather.models.segmenter import Segmenter

BNMode = Literal["source", "mixed", "batch", "running", "train"]


def adopt_statistics(model: Segmenter, mode: BNMode, share: float | None) -> dict[str, Tensor]:
    """Makes every BatchNorm layer of the session's copy normalise by the statistics that `mode` names.

    Parameters, buffers and their names stay what they were; layers that see one value per channel (a pooled
    branch under a batch of one) have no variance and keep the source's statistics in every mode.

    Args:
        mode: `source`, the checkpoint's; `mixed`, (1 − share)·source + share·batch for mean and variance
            (Schneider et al., NeurIPS 2020); `batch`, the test batch's alone; `running`, an exponential average
            that starts at the source's and takes `share` of each batch; `train`, what `model.train()` does to
            BatchNorm: batch statistics while adapting, the running average (momentum `share`) while predicting.
        share: in [0, 1]; None takes the network's recommendation.

    Returns:
        The buffers that a forward pass may move, by name within the network.
    """
    share = model.facts.bn_share if share is None else share
    moved: dict[str, Tensor] = {}
    for prefix, module in model.network.named_modules():
        if not isinstance(module, _BatchNorm) or module.running_mean is None:
            continue
        layer = _adopt(module)
        layer.mode, layer.share, layer.moving = (
            "batch" if mode == "mixed" and share == 1.0 else mode,
            share,
            False,
        )
        if mode in ("running", "train"):
            moved |= {f"{prefix}.{name}" if prefix else name: buffer for name, buffer in layer.named_buffers()}
    return moved


def has_statistics(model: Segmenter) -> bool:
    """Whether the network has BatchNorm layers with running statistics."""
    return any(isinstance(module, _BatchNorm) and module.running_mean is not None for module in model.network.modules())


@contextmanager
def moving_statistics(model: nn.Module, moving: bool = True) -> Iterator[None]:
    """Lets forward passes inside move the running statistics of modes `running` and `train`, or keeps them still."""
    layers = [module for module in model.modules() if isinstance(module, TestTimeStatistics)]
    before = [layer.moving for layer in layers]
    for layer in layers:
        layer.moving = moving
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.moving = value


class TestTimeStatistics(_BatchNorm):
    """What a BatchNorm layer of any class becomes when a session adopts it; never constructed."""

    mode: BNMode
    share: float
    moving: bool

    def forward(self, input: Tensor) -> Tensor:
        if self.mode == "source" or input.numel() // input.shape[1] < 2:
            return super().forward(input)
        if self.mode == "mixed":
            return self._with_statistics(input, *self._blend(input))
        if self.mode == "batch":
            return self._with_statistics(input, None, None)
        if not self.moving:
            return super().forward(input)
        if self.mode == "running":
            return self._with_statistics(input, *self._move(input))
        self.training = True
        try:
            return super().forward(input)
        finally:
            self.training = False

    @torch.no_grad()
    def _blend(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance per channel; constants to the gradient, which a small share hardly changes."""
        mean, var = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        batch_var, batch_mean = torch.var_mean(input.to(mean.dtype), axes, correction=0)
        return torch.lerp(mean, batch_mean, self.share), torch.lerp(var, batch_var, self.share)

    def _move(self, input: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = self._blend(input)
        cast(Tensor, self.running_mean).copy_(mean)
        cast(Tensor, self.running_var).copy_(var)
        return mean, var

    def _with_statistics(self, input: Tensor, mean: Tensor | None, var: Tensor | None) -> Tensor:
        """The layer's own forward under other statistics; None for both means the input's own."""
        kept = self.running_mean, self.running_var
        self.running_mean, self.running_var = mean, var
        try:
            return super().forward(input)
        finally:
            self.running_mean, self.running_var = kept


def _adopt(module: _BatchNorm) -> TestTimeStatistics:
    # a class swap keeps parameters, buffers, names and any forward of a subclass (fused activations)
    if not isinstance(module, TestTimeStatistics):
        module.__class__ = _adopted_class(type(module))  # type: ignore[arg-type]  # a class is hashable
    return cast(TestTimeStatistics, module)


@cache
def _adopted_class(layer: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(f"TestTime{layer.__name__}", (TestTimeStatistics, layer), {})
