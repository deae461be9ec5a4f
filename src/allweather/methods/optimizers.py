"""Adam and SGD of torch, without the import of torch's compiler that takes seconds of a process's first step."""

from collections.abc import Callable
from functools import wraps
from inspect import unwrap
from typing import Any, TypeVar

import torch

_Kind = TypeVar("_Kind", bound=type[torch.optim.Optimizer])


def _without_compiler(kind: _Kind) -> _Kind:
    """`kind` with the methods that lie below torch's wrappers, which only keep the compiler off them."""
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        setattr(kind, name, unwrap(getattr(kind, name)))
    taken: Callable[..., Any] = unwrap(kind.step)

    @wraps(taken)
    def step(self: torch.optim.Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return taken(self, closure)

    setattr(kind, "step", step)  # noqa: B010
    return kind


@_without_compiler
class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, bit for bit."""


@_without_compiler
class SGD(torch.optim.SGD):
    """`torch.optim.SGD`, bit for bit."""
