"""A session's own copy of a network: whatever form the network came in, plain float32 tensors that may be moved."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from allweather.errors import NetworkError, first_line
from allweather.finite import FLOATS, all_finite
from allweather.models.deep_copy import UNCOPYABLE, deep_copy
from allweather.models.inputs import unwrapped
from allweather.models.norm_layers import STATISTICS, has_own_statistics, input_of
from allweather.models.quiet import adopt_quiet_layers
from allweather.models.segmenter import Segmenter
from allweather.plugins import FAULTS, where


def independent_copy(model: Segmenter) -> Segmenter:
    """A copy that shares no tensor with `model`, in evaluation mode, gradients off.

    - Networks in float16, bfloat16 or float64 become float32, buffers too. Where the parameters are float32, every
      dtype is kept.
    - Tensors made under inference mode become ordinary tensors. Outputs that a module kept are copied without their
      graph.
    - Wrappers of torch.compile and of data parallelism are taken off.
    - BatchNorm layers of a class of their own keep their forward and count as BatchNorm: frozen weights and biases can
      move, statistics can be mixed (`AdoptedBatchNorm`).
    - PReLU layers give the same without the gradient of slopes that stand still (`QuietPReLU`), grouped convolutions
      with a faster gradient of their input (`QuietConv2d`).
    - TorchScript modules stay as they are: parameters can move, statistics cannot be mixed.
    - Hooks of modules are kept (weight_norm needs them). A hook, or a forward of the instance's own, that holds a part
      of the network holds the copy's part (`deep_copy`). Hooks of tensors are not copied.

    Raises:
        NetworkError: for a network that cannot be copied, or whose parameters have no values yet or values that are not
            finite.
    """
    _check_values(model)
    memo: dict[int, Any] = {}
    try:
        with torch.inference_mode(False), torch.no_grad(), _PlainTensors(single=_is_other_precision(model)) as plain:
            memo[id(model.network)] = deepcopy(unwrapped(model.network), memo)
            copy = deep_copy(model, memo)
            if plain.single:
                copy.float()
    except UNCOPYABLE as error:
        raise NetworkError(
            f"{model.name}: a session adapts a copy, and the network cannot be copied ({first_line(error)}). "
            "Remove what copy.deepcopy(network) refuses, such as locks, open files and generators."
        ) from error
    _check_apart(copy, model)
    try:
        copy.eval()
    except FAULTS as error:  # of a `train` of its own
        raise NetworkError(
            f"{model.name}: a session adapts a copy in evaluation mode, and the network's own train(False) fails: "
            f"{where(error)}."
        ) from error
    for parameter in copy.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    for module in copy.network.modules():
        if has_own_statistics(module):
            _adopt(module)
    adopt_quiet_layers(copy.network)
    return copy


class AdoptedBatchNorm(_BatchNorm):
    """What a BatchNorm of another class becomes in the copy; never constructed.

    Its own forward runs, on the batch's statistics where the running ones are None or it trains.
    """

    own: ClassVar[type[nn.Module]]
    fixed: tuple[str, ...]  # names of all that were buffers, in order, where weight or bias was among them

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self.own,), self.__dict__  # pickle finds the own class by its name, not the adopted one

    def forward(self, *given: Any, **named: Any) -> Tensor:
        kept = self.running_mean, self.running_var, self.training
        if self.running_mean is None or self.training:
            input, again = input_of(self, given, named)
            input, self.running_mean, self.running_var = self._by_batch(input)
            given, named = again(input)
        self.training = False
        try:
            return cast(Tensor, self.own.forward(self, *given, **named))
        finally:
            self.running_mean, self.running_var, self.training = kept

    def _by_batch(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The input, and its mean and variance per channel; the running ones move towards them where the layer trains.

        Statistics are constants to many a forward, so it is the input that carries the gradient through them.
        """
        axes = [axis for axis in range(input.ndim) if axis != 1]
        var, mean = torch.var_mean(input, axes, correction=0, keepdim=True)
        if input.requires_grad and torch.is_grad_enabled():
            std = (var + self.eps).sqrt()
            input = (input - mean) * (std.detach() / std) + mean.detach()
        mean, var = mean.detach().flatten(), var.detach().flatten()
        if self.training and self.running_mean is not None and self.running_var is not None:
            values = input.numel() // input.shape[1]
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(var * values / max(1, values - 1), self.momentum or 0.0)
        return input, mean, var


class _PlainTensors(TorchFunctionMode):
    """Within it, deepcopy takes tensors that it would refuse or keep special: the values alone.

    Attributes:
        single: whether floating-point tensors become float32.
    """

    def __init__(self, *, single: bool) -> None:
        super().__init__()
        self.single = single

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and self._is_special(args[0]):
            tensor, memo = args
            if id(tensor) not in memo:
                values = tensor.detach().clone()
                memo[id(tensor)] = values.float() if self._is_cast(tensor) else values
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))

    def _is_special(self, tensor: Tensor) -> bool:
        return not tensor.is_leaf or tensor.is_inference() or self._is_cast(tensor)

    def _is_cast(self, tensor: Tensor) -> bool:
        return self.single and tensor.is_floating_point()


def _check_values(model: Segmenter) -> None:
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise NetworkError(f"{model.name}: {name} has no shape yet. Call the network once on an image first.")
        if parameter.is_meta:
            raise NetworkError(f"{model.name}: {name} has no values (meta device). Load its weights first.")
    _check_finite(model)


def _check_apart(copy: Segmenter, model: Segmenter) -> None:
    """Refuses a copy that shares anything with the network, which would then change for good."""
    held = {*map(id, model.modules()), *(at for _, at in _places(model))}
    kept = [(name, type(each).__name__) for name, each in copy.named_modules() if id(each) in held]
    kept += [(name, "its module") for name, at in _places(copy) if at in held]
    if kept:
        name, whose = kept[0]
        raise NetworkError(
            f"{model.name}: a session adapts a copy, and copy.deepcopy(network) gives {name} itself, no copy. "
            f"Remove the __deepcopy__ of {whose}, or let it copy."
        )


def _places(model: Segmenter) -> list[tuple[str, tuple[torch.device, int]]]:
    """Where parameters and buffers lie, by name."""
    named = [*model.named_parameters(), *model.named_buffers()]
    laid = [(name, each) for name, each in named if each.layout == torch.strided]
    return [(name, (each.device, at)) for name, each in laid if (at := each.data_ptr())]  # 0: empty, or of two tensors


def _check_finite(model: Segmenter) -> None:
    """Refuses weights and running statistics that are not finite; other buffers may be so by design, as masks are."""
    held = {
        name.removeprefix("network."): tensor.detach()
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if tensor.dtype in FLOATS and (isinstance(tensor, nn.Parameter) or name.endswith(STATISTICS))
    }
    finite = {name: all_finite(tensor) for name, tensor in held.items()}
    if not held or torch.stack([each.cpu() for each in finite.values()]).all():
        return
    name = next(name for name, each in finite.items() if not each)
    half = ", or float16 was too small for it: take float32 or bfloat16" if held[name].dtype == torch.float16 else ""
    raise NetworkError(
        f"{model.name}: {name} holds NaN or infinite values, and no prediction could be right. The checkpoint is "
        f"damaged{half}."
    )


def _is_other_precision(model: Segmenter) -> bool:
    return any(tensor.is_floating_point() and tensor.dtype != torch.float32 for tensor in model.parameters())


def _adopt(module: nn.Module) -> None:
    # a class swap keeps parameters, buffers, names and the forward
    affine = [name for name in ("weight", "bias") if isinstance(module._buffers.get(name), Tensor)]
    fixed = tuple(module._buffers) if affine else ()
    for name in affine:
        module.register_parameter(name, nn.Parameter(cast(Tensor, module._buffers.pop(name)), requires_grad=False))
    statistics = cast(Tensor, module.running_mean)
    module.__class__ = adopted_class(type(module))  # type: ignore[arg-type]  # a class is hashable
    layer = cast(AdoptedBatchNorm, module)
    layer.fixed = fixed
    layer.num_features, layer.affine, layer.track_running_stats = len(statistics), True, True
    layer.eps, layer.momentum = getattr(module, "eps", 1e-5), getattr(module, "momentum", 0.1)


@cache
def adopted_class(layer: type[nn.Module]) -> type[AdoptedBatchNorm]:
    """What a BatchNorm of class `layer`, which is not PyTorch's, becomes in a copy."""
    return type(f"Adopted{layer.__name__}", (AdoptedBatchNorm, layer), {"own": layer})


def _remade(layer: type[nn.Module]) -> AdoptedBatchNorm:
    """An adopted layer without its state, which pickle fills in."""
    adopted = adopted_class(layer)  # type: ignore[arg-type]  # a class is hashable
    return adopted.__new__(adopted)
