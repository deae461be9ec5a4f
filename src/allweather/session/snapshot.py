"""Copies of everything a method may move, so that a session can return to them bit for bit."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from allweather.errors import AllWeatherError


@dataclass(frozen=True)
class Snapshot:
    """The values of named tensors, of the optimizer's state, and the number of updates made, at one moment."""

    tensors: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    updates: int = 0

    @classmethod
    def take(
        cls, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer | None, updates: int = 0
    ) -> "Snapshot":
        """Copies of `tensors` and of the optimizer's state."""
        values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        return cls(values, deepcopy(optimizer.state_dict()) if optimizer else None, updates)

    def restore(self, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer | None) -> None:
        """Writes the values back in place."""
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(self.tensors[name])
        if optimizer and self.optimizer:
            optimizer.load_state_dict(deepcopy(self.optimizer))


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


def optimizer_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `flatten_optimizer` was given, for an optimizer of the same parameters.

    Raises:
        AllWeatherError: when the state belongs to another number of parameters.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    count = sum(len(group["params"]) for group in groups)
    if state and max(state) >= count:
        raise AllWeatherError(f"expected optimizer state of {count} parameters, the file holds {max(state) + 1}.")
    return {"state": state, "param_groups": groups}
