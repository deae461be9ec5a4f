"""BatchNorm statistics at test time: the source's, the test images', a mixture, or a running average."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from inspect import unwrap
from typing import Any, ClassVar, Literal, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from allweather.errors import SettingsError
from allweather.methods.moments import Seen, moments, pooled, seen_in
from allweather.methods.option import is_set, option, where
from allweather.models.copying import AdoptedBatchNorm, adopted_class
from allweather.models.norm_layers import has_own_statistics, input_of
from allweather.models.segmenter import Segmenter

BNMode = Literal["source", "mixed", "batch", "running", "train"]
Own = Callable[[Tensor], Tensor]  # a layer's own forward, but for its input


def bn_option() -> Any:
    """The field `bn` of a method: the mode of `adopt_statistics`."""
    return option("mixed", "BatchNorm statistics: source, mixed, batch, running, train")


def share_option() -> Any:
    """The field `share` of a method, in the modes that take a share of the batch's statistics."""
    text = "share of the test batch's statistics, 0..1; none: the network's own"
    return option(None, text, low=0, high=1, needs=where(bn=("mixed", "running", "train")))


def adopt_statistics(model: Segmenter, mode: BNMode, share: float | None, asker: Any = None) -> dict[str, Tensor]:
    """Makes every BatchNorm layer of the session's copy normalise by the statistics that `mode` names.

    Parameters, buffers and their names stay. A layer that sees one value per channel (a pooled branch with one image)
    has no variance, and keeps the source's statistics in every mode.

    Args:
        model: the session's own copy of the network; its layers are changed in place.
        mode: `source`: the checkpoint's. `mixed`: (1 − share) · source + share · batch, for mean and variance
            (Schneider et al., NeurIPS 2020). `batch`: the test batch's alone. `running`: an exponential average that
            starts at the source's and takes `share` of each batch. `train`: what `model.train()` does to BatchNorm: the
            batch's while adapting, a running average of momentum `share` while predicting.
        share: of the batch's statistics, 0..1; None takes the network's recommendation.
        asker: the method whose fields `bn` and `share` these are; None where nobody chose them.

    Returns:
        The buffers that a forward pass may move, by name within the network.

    Raises:
        SettingsError: where `asker` sets one of the two and the network has no BatchNorm statistics.
    """
    if asker is not None and not has_statistics(model):
        for name, value in (("bn", mode), ("share", share)):
            if is_set(asker, name, value):
                raise SettingsError(
                    f"{asker.name}.{name}={value} would change nothing: {model.name} has no BatchNorm statistics. "
                    "Leave it out for this network."
                )
    share = model.facts.bn_share if share is None else share
    moved: dict[str, Tensor] = {}
    for prefix, module in model.network.named_modules():
        if not keeps_statistics(module):
            continue
        layer = _adopt(module)
        layer.mode, layer.share, layer.moving = (
            "batch" if mode == "mixed" and share == 1.0 else mode,
            share,
            False,
        )
        layer.seen, layer.calls = (), []
        if mode == "train":
            layer.momentum = share
        if mode in ("running", "train"):
            moved |= {f"{prefix}.{name}" if prefix else name: buffer for name, buffer in layer.named_buffers()}
    return moved


def keeps_statistics(layer: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether a layer is a BatchNorm with running statistics."""
    return isinstance(layer, _BatchNorm) and layer.running_mean is not None


def can_mix(layer: nn.Module) -> bool:
    """Whether the layer normalises by running statistics, as those do that a session mixes the image's into."""
    return has_own_statistics(layer) or keeps_statistics(layer)


def has_statistics(model: Segmenter) -> bool:
    """Whether the network has BatchNorm layers with running statistics, of any class."""
    return any(map(can_mix, model.network.modules()))


def has_batch_layers(model: Segmenter) -> bool:
    """Whether BatchNorm layers without running statistics see to it that images of one batch are not independent."""
    return any(isinstance(module, _BatchNorm) and module.running_mean is None for module in model.network.modules())


def own_statistics(model: nn.Module) -> AbstractContextManager[None]:
    """Inside, every layer normalises by its own running statistics, as in mode `source`."""
    return _layers_with(model, mode="source")


def replaces_statistics(model: nn.Module) -> bool:
    """Whether any layer normalises by other statistics than the checkpoint's."""
    return any(isinstance(module, TestTimeStatistics) and module.mode != "source" for module in model.modules())


def batch_in_parts(model: nn.Module, parts: int) -> AbstractContextManager[None]:
    """Inside, a batch is so many batches of equal size one after another, each normalised by its own statistics."""
    return _layers_with(model, parts=parts)


def moving_statistics(model: nn.Module, moving: bool = True) -> AbstractContextManager[None]:
    """Lets passes inside move the statistics of modes `running`, by all calls together, and `train`; or keeps them."""
    return _layers_with(model, moving=moving, given=())


def further_passes(model: nn.Module) -> AbstractContextManager[None]:
    """Inside, no layer takes a share of what it sees: the batch has had its own, and this is another look at it."""
    return _layers_with(model, taken=True)


@contextmanager
def noted_calls(model: nn.Module) -> Iterator[None]:
    """Inside, a layer notes by what it normalises: checkpointed activations are computed once more for the gradient."""
    for layer in _adopted(model):
        layer.calls = []
    with _layers_with(model, notes=True):
        yield


def _adopted(model: nn.Module) -> "list[TestTimeStatistics]":
    return [module for module in model.modules() if isinstance(module, TestTimeStatistics)]


@contextmanager
def _layers_with(model: nn.Module, **values: Any) -> Iterator[None]:
    """Inside, attributes of every adopted layer have these values."""
    layers = _adopted(model)
    before = [{name: getattr(layer, name) for name in values} for layer in layers]
    for layer in layers:
        layer.__dict__.update(values)
    try:
        yield
    finally:
        for layer, kept in zip(layers, before, strict=True):
            layer.__dict__.update(kept)


@dataclass(eq=False)
class Call:
    """By which mean and variance, C each, a layer normalised; None for the input's own, of which `some` is kept."""

    some: Tensor
    mean: Tensor | None
    var: Tensor | None
    asked: bool = False  # whether a gradient has come to it


class TestTimeStatistics(_BatchNorm):
    """What a BatchNorm layer of any class becomes when a session adopts it; never constructed.

    Where the layer has a forward of its own that ends in PyTorch's by super(), that is where the statistics are mixed,
    whatever it does before; any other runs on buffers that hold the mixture.
    """

    mode: BNMode
    share: float
    moving: bool
    ordinary: ClassVar[bool]  # whether the forward of the class that was adopted is PyTorch's own
    passes_on: ClassVar[bool]  # whether it calls that of a base
    parts: int = 1
    taken: bool = False  # whether the batch has had its share already: `further_passes`
    reached: bool = False  # whether the forward has come to PyTorch's
    given: tuple[Seen, ...] = ()  # in mode running: statistics before the pass, and each call's
    seen: tuple[Seen, ...]  # of the first pass since they were last taken, while moving; one of each window that slides
    notes: bool = False  # `noted_calls`
    calls: list[Call]  # in modes running and train, of the last objective

    def forward(self, *given: Any, **named: Any) -> Tensor:
        if self.ordinary:
            return self.normalised(*given, **named)
        if self.passes_on or self.mode == "source":
            self.reached = self.mode == "source"
            made = super().forward(*given, **named)
            if self.reached:
                return made
        input, again = input_of(self, given, named)
        forward = super().forward

        def own(input: Tensor) -> Tensor:
            changed, kept = again(input)
            return forward(*changed, **kept)

        return self.normalised(input, own)

    def normalised(self, input: Tensor, own: Own | None = None) -> Tensor:
        """The input B×C×… normalised in this mode, by PyTorch's forward or one on the buffers' statistics."""
        if self.parts > 1 and self.mode != "source":
            return torch.cat([self._normalised(part, own) for part in input.chunk(self.parts)])
        return self._normalised(input, own)

    def _normalised(self, input: Tensor, own: Own | None) -> Tensor:
        if self.mode == "source" or input.numel() // input.shape[1] < 2:
            return self._by_buffers(input, own)
        if self.mode == "mixed":
            return self._with_statistics(input, own, *self._blend(input))
        if self.mode == "batch":
            return self._by_this_batch(input, own)
        again = _in_gradient()
        if again and (call := self._noted(input)):
            mean, var = call.mean, call.var
        elif not self.moving or (self.taken and self.mode == "running"):
            mean, var = self.running_mean, self.running_var
        else:
            mean, var = self._move(input) if self.mode == "running" else (None, None)
        if not torch.compiler.is_compiling() and self.notes and not again:
            kept = (None, None) if mean is None or var is None else (mean.clone(), var.clone())
            self.calls.append(Call(_some(input), *kept))
        if mean is None:
            return self._in_training(input, own, self.moving and not self.taken and not again)
        return self._with_statistics(input, own, mean, var)

    def _noted(self, input: Tensor) -> Call | None:
        """The first call that saw this input and was not asked for yet; of inputs that differ, the nearest."""
        some = _some(input)
        alike = (call for call in self.calls if call.some.shape == some.shape)
        call = min(alike, key=lambda call: (float((call.some - some).abs().sum()), call.asked), default=None)
        if call:
            call.asked = True
        return call

    def _in_training(self, input: Tensor, own: Own | None, moves: bool) -> Tensor:
        """In training mode, by the input's own statistics; without `moves` it is copies of the buffers that move."""
        kept = {} if moves else dict(self._buffers)
        self._buffers.update({name: value if value is None else value.clone() for name, value in kept.items()})
        self.training = True
        try:
            return self._by_buffers(input, own)
        finally:
            self.training = False
            self._buffers.update(kept)

    def _by_buffers(self, input: Tensor, own: Own | None) -> Tensor:
        return _BatchNorm.forward(self, input) if own is None else own(input)

    def _by_this_batch(self, input: Tensor, own: Own | None) -> Tensor:
        """Normalised by the input's own statistics, through which its gradient goes."""
        quick, first = own is None and _OfBatch.takes(input), self.moving and not self.taken
        if quick or first:
            seen = moments(input.detach().to(cast(Tensor, self.running_mean).dtype))
            if first:
                self.seen = (*self.seen, seen_in(input, *seen))
            if quick:
                return cast(Tensor, _OfBatch.apply(input, self.weight, self.bias, *seen, self.eps))
        return self._with_statistics(input, own, None, None)

    @torch.no_grad()
    def _blend(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance per channel; constants to the gradient, which a small share hardly changes."""
        mean, var = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        batch_mean, batch_var = moments(input.to(mean.dtype))
        if self.moving and not self.taken:
            self.seen = (*self.seen, seen_in(input, batch_mean, batch_var))
        return torch.lerp(mean, batch_mean, self.share), torch.lerp(var, batch_var, self.share)

    def __reduce__(self) -> tuple[Any, ...]:
        layer = type(self).__mro__[2]  # the class that was adopted: this class's own class is made at run time
        return _rebuilt, (layer.own if issubclass(layer, AdoptedBatchNorm) else layer,), self.__dict__

    @torch.no_grad()
    def _move(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Moves by the share of all calls of this pass; gives what this one alone would move to."""
        now = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        if not self.given:
            self.given = (Seen(now[0].clone(), now[1].clone(), 0),)
        own = moments(input.to(now[0].dtype))
        self.given = (*self.given, seen_in(input, *own))
        before, *calls = self.given
        mean, var = pooled(calls)
        now[0].copy_(torch.lerp(before.mean, mean, self.share))
        now[1].copy_(torch.lerp(before.var, var, self.share))
        return torch.lerp(before.mean, own[0], self.share), torch.lerp(before.var, own[1], self.share)

    def _with_statistics(self, input: Tensor, own: Own | None, mean: Tensor | None, var: Tensor | None) -> Tensor:
        """The layer's own forward under other statistics; None for both means the input's own."""
        if own is None and not self.training:
            return functional.batch_norm(input, mean, var, self.weight, self.bias, mean is None, 0.0, self.eps)
        kept = self.running_mean, self.running_var
        self.running_mean, self.running_var = mean, var
        try:
            return self._by_buffers(input, own)
        finally:
            self.running_mean, self.running_var = kept


class _Within(_BatchNorm):
    """Stands before PyTorch's own among the bases of an adopted class, where super() leads to it."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training or self.running_mean is None:  # replaced already, around the layer's own forward
            return super().forward(input)
        self.reached = True
        return cast(TestTimeStatistics, self).normalised(input)


class _OfBatch(torch.autograd.Function):
    """PyTorch's training-mode BatchNorm on the CPU with moments that are known; its forward takes them slowly."""

    @staticmethod
    def takes(input: Tensor) -> bool:
        return input.device.type == "cpu" and input.dtype == torch.float32 and not torch.compiler.is_compiling()

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
    ) -> Tensor:
        ctx.eps = eps
        ctx.save_for_backward(input, weight, mean, (var + eps).rsqrt())
        return torch.batch_norm(input, weight, bias, mean, var, False, 0.0, eps, False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, inverse = ctx.saved_tensors
        found = torch.ops.aten.native_batch_norm_backward(
            gradient, input, weight, None, None, mean, inverse, True, ctx.eps, ctx.needs_input_grad[:3]
        )
        return *found, None, None, None


def _some(input: Tensor) -> Tensor:
    """Up to five by five positions of B×C×H×W."""
    places = (slice(side // 8, None, max(1, side // 4)) for side in input.shape[2:])
    return input.detach()[(slice(None), slice(None), *places)].clone()


def _in_gradient() -> bool:
    """Whether a backward pass is under way: then activations that a checkpoint did not keep are computed once more."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _adopt(module: _BatchNorm) -> TestTimeStatistics:
    # a class swap keeps parameters, buffers, names and any forward of a subclass (fused activations)
    if not isinstance(module, TestTimeStatistics):
        module.__class__ = _adopted_class(type(module))  # type: ignore[arg-type]  # a class is hashable
    return cast(TestTimeStatistics, module)


def _rebuilt(layer: type[nn.Module]) -> nn.Module:
    """An adopted layer without its contents, as unpickling and copying fill it."""
    if not issubclass(layer, _BatchNorm):
        layer = adopted_class(layer)  # type: ignore[arg-type]  # a class is hashable
    adopted = _adopted_class(layer)  # type: ignore[arg-type]
    return adopted.__new__(adopted)


@cache
def _adopted_class(layer: type[_BatchNorm]) -> type[_BatchNorm]:
    names = getattr(getattr(unwrap(layer.forward), "__code__", None), "co_names", ())
    about = {"ordinary": layer.forward is _BatchNorm.forward, "passes_on": "super" in names}
    within = (_Within,) if about["passes_on"] else ()
    return type(f"TestTime{layer.__name__}", (TestTimeStatistics, layer, *within), about)
