"""Copies of everything that may move, so that a session can return to them bit for bit."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from allweather.errors import CheckpointError
from allweather.methods.method import Method, State
from allweather.models.placing import device_of
from allweather.plugins import FAULTS, where
from allweather.session.attributes import OwnAttributes, Values


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The values of named tensors, of the optimizer's state and of plain attributes, and the number of updates made."""

    tensors: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    updates: int
    attributes: Values = field(default_factory=dict)

    @classmethod
    def take(
        cls, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer | None, updates: int = 0
    ) -> "Snapshot":
        """Copies of `tensors` and of the optimizer's state."""
        values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        return cls(values, _copied(optimizer.state_dict()) if optimizer else None, updates)

    def restore(self, state: State, optimizer: torch.optim.Optimizer | None) -> None:
        """Writes the values back in place; what a method has added to the state since, or enlarged, goes."""
        _as_then(state, self.tensors)
        with torch.no_grad():
            for name, tensor in state.tensors().items():
                tensor.copy_(self.tensors[name])
        if optimizer and self.optimizer:
            optimizer.load_state_dict(_copied(self.optimizer))


def _as_then(state: State, values: Mapping[str, Tensor]) -> None:
    """Leaves in the state the names of `values` alone; of a method's own tensors another shape or type is replaced."""
    for extra in state.tensors().keys() - values.keys():
        group, _, name = extra.partition(".")
        del getattr(state, group)[name]
    for full, value in values.items():
        if full.startswith(("memory.", "output.")):
            group, _, name = full.partition(".")
            held = getattr(state, group)
            now = held.get(name)
            if not isinstance(now, Tensor) or (now.shape, now.dtype) != (value.shape, value.dtype):
                held[name] = value.clone()


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state whose tensors are copies; `deepcopy` takes twenty times as long."""
    moments = {
        index: {key: value.clone() if isinstance(value, Tensor) else value for key, value in entries.items()}
        for index, entries in state["state"].items()
    }
    return {"state": moments, "param_groups": [dict(group) for group in state["param_groups"]]}


class OwnBuffers:
    """Buffers that a network moves by itself in its forward pass, such as a moving average or a counter of calls.

    Which ones do is found out as they move: whenever it is asked, every buffer that was written to, replaced or
    registered since the beginning counts from then on.

    Args:
        network: the session's copy, as it came.
        declared: buffers that the method declares; these are no concern of this class.
    """

    def __init__(self, network: nn.Module, declared: Iterable[Tensor]) -> None:
        known = {id(buffer) for buffer in declared}
        self._network, self._modules = network, dict(network.named_modules())
        self._places: dict[str, tuple[nn.Module, str]] = {}
        self._began: dict[str, set[str]] = {}  # the names of each module's buffers, but of those that are None
        for prefix, module in self._modules.items():
            began = dict(module.named_buffers(recurse=False))
            self._began[prefix] = set(began)
            self._places |= {_joined(prefix, key): (module, key) for key, b in began.items() if id(b) not in known}
        self._empty = {
            _joined(prefix, key)
            for prefix, module in self._modules.items()
            for key, buffer in module._buffers.items()
            if buffer is None
        }
        self.source = {name: cast(Tensor, self._now(name)).detach().clone() for name in self._places}
        self._marks = {name: self._mark(name) for name in self._places}
        self.moving: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        self.look()  # a copy's buffers are others, whose marks say nothing of these
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._marks = {name: self._mark(name) for name in self.source}

    def take(self) -> dict[str, Tensor]:
        """Copies of the buffers known to move."""
        self.look()
        now = {name: self._now(name) for name in sorted(self.moving)}
        return {name: value.detach().clone() for name, value in now.items() if value is not None}

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Writes `values` back; a buffer that they do not name had not moved then, and is as in the source."""
        self.look()
        for name in values.keys() - self._places.keys():
            prefix, _, key = name.rpartition(".")
            self._places[name] = self._modules[prefix], key
        self.moving |= values.keys()
        for name in tuple(self.moving):
            now, (module, key), value = self._now(name), self._places[name], values.get(name, self.source.get(name))
            if value is None:
                self._drop(name, module)
            elif now is not None and now.shape == value.shape and not now.is_inference():
                now.copy_(value)
            else:
                module._buffers[key] = value.to(device_of(self._network), copy=True)

    def takes(self, name: str, value: Tensor) -> bool:
        """Whether a buffer of this name may have such a value: one of the source's, or one that a pass registers."""
        if name in self.source:
            return self.source[name].dtype == value.dtype
        prefix, _, key = name.rpartition(".")
        module = self._modules.get(prefix)
        return name in self._places or name in self._empty or (module is not None and not hasattr(module, key))

    def sources(self) -> dict[int, Tensor]:
        """The source's value of each buffer, by the `id` of the buffer as it is now."""
        return {id(self._now(name)): value for name, value in self.source.items()}

    def added(self) -> set[str]:
        """The names of buffers that the source did not have."""
        self.look()
        return self._places.keys() - self.source.keys()

    def drop_added(self, copy: nn.Module) -> None:
        """Takes them out of a copy of the network, which makes them again; and those whose shape passes change."""
        for name in self.added():
            self._drop(name, copy.get_submodule(name.rpartition(".")[0]))
        for name in self.moving & self.source.keys():
            now, value, (prefix, _, key) = self._now(name), self.source[name], name.rpartition(".")
            if now is not None and now.shape != value.shape:
                copy.get_submodule(prefix)._buffers[key] = value.cpu().clone()

    def _drop(self, name: str, module: nn.Module) -> None:
        key = name.rpartition(".")[2]
        if name in self._empty:
            module._buffers[key] = None
        else:
            module._buffers.pop(key, None)

    def look(self) -> None:
        """Takes note of what has moved; of two passes without a look, a buffer may have the first one's place again."""
        self.moving |= {
            name for name, mark in self._marks.items() if name not in self.moving and self._mark(name) != mark
        }
        for prefix, module in self._modules.items():
            began = self._began[prefix]
            added = [key for key, buffer in module._buffers.items() if key not in began and buffer is not None]
            self._places |= {_joined(prefix, key): (module, key) for key in added}
            self.moving.update(_joined(prefix, key) for key in added)

    def _now(self, name: str) -> Tensor | None:
        module, key = self._places[name]
        return module._buffers[key] if key in module._buffers else None  # noqa: SIM401 – TorchScript's has no `get`

    def _mark(self, name: str) -> tuple[int, int]:
        buffer = self._now(name)
        return id(buffer), 0 if buffer is None or buffer.is_inference() else buffer._version


@contextmanager
def left_as_it_came(network: nn.Module) -> Iterator[None]:
    """Afterwards, buffers and plain attributes that the network moved in its passes are as they were."""
    buffers, attributes = OwnBuffers(network, ()), OwnAttributes(network)

    def look(*_: object) -> None:
        buffers.look()
        attributes.look()

    looking = network.register_forward_hook(look)
    try:
        yield
    finally:
        looking.remove()
        with torch.no_grad():
            buffers.restore({})
            attributes.restore({})


def _joined(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key


def flatten_optimizer(state: Mapping[str, Any] | None) -> dict[str, Tensor]:
    """The per-parameter part of an optimizer's state as named tensors; numbers become 0-dimensional ones."""
    if state is None:
        return {}
    return {
        f"optimizer.{index}.{key}": torch.as_tensor(value)
        for index, entries in state["state"].items()
        for key, value in entries.items()
        if value is not None
    }


def optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], method: Method, parameters: Iterable[nn.Parameter]
) -> dict[str, Any]:
    """What `flatten_optimizer` was given, for an optimizer of the same parameters; its own groups are taken.

    Args:
        method: makes another of copies of `parameters`. What that remembers of each after a step must be there for
            those that anything is there for.

    Raises:
        CheckpointError: for a name that is none of an optimizer's, a parameter that it does not have, or a state that
            lacks something or has another shape.
    """
    expected = _after_a_step(method, deepcopy(list(parameters)))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if not name.startswith("optimizer."):
            continue
        if name not in expected:
            usual = ", ".join([*expected][:2]) or "no optimizer state"
            raise CheckpointError(f"expected {usual}, …; found '{name}'.")
        if tensor.shape != (shape := expected[name].shape):
            raise CheckpointError(f"expected {name} of shape {tuple(shape)}, found {tuple(tensor.shape)}.")
        if tensor.ndim:  # in that order of memory, which the last bit of a step depends on
            tensor = torch.empty_like(expected[name], dtype=tensor.dtype).copy_(tensor)
        _, index, key = name.split(".", 2)
        state.setdefault(int(index), {})[key] = tensor
    lacking = [name for name in expected if int(name.split(".")[1]) in state and name not in tensors]
    if lacking:
        raise CheckpointError(f"expected {lacking[0]} beside what else there is of that parameter.")
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


def _after_a_step(method: Method, parameters: list[nn.Parameter]) -> dict[str, Tensor]:
    """What a fresh optimizer of these remembers after it, as `flatten_optimizer` names it."""
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    try:
        optimizer = cast(torch.optim.Optimizer, method.make_optimizer(parameters))
        optimizer.step()
    except FAULTS as error:
        raise CheckpointError(
            f"{method.name}: make_optimizer gives none of copies of the parameters ({where(error)}). Let it tell them "
            "by order and shape."
        ) from error
    return flatten_optimizer(optimizer.state_dict())
