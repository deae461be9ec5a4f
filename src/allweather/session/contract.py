"""What code of a method or a view must leave as it found it: images, the network's modes, the form of the state."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from allweather.errors import SettingsError
from allweather.methods.method import State
from allweather.models.programs import outer_modules
from allweather.plugins import told_of
from allweather.session.given import said

_Forms = dict[str, dict[str, Any]]  # of each tensor, by group and name


class Contract:
    """Watches over code that may be the user's own; made once `begin` has prepared the network and said what may move.

    Args:
        model: the session's copy of the network, whose modes stay what they are now.
        state: whose names stay, and of a method's own tensors shapes and types.
    """

    def __init__(self, model: nn.Module, state: State) -> None:
        self._state, self._forms = state, _forms(state)
        self._said = {name: said(tensor) for name, tensor in state.tensors().items()}
        self._modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
        self._telling = [module for module in dict.fromkeys(outer_modules(model)) if hasattr(module, "training")]
        self._told = [module.training for module in self._telling]

    @contextmanager
    def kept(self, who: str, code: object, **given: Tensor) -> Iterator[None]:
        """Inside, `code` is at work on tensors, by what they are called; `who` is told of it. Modes come back always.

        Raises:
            SettingsError: where it has changed one of these in place, or the form of the state.
        """
        versions = {what: _version(tensor) for what, tensor in given.items()}
        try:
            with told_of(code, who):
                yield
        finally:
            if [module.training for module in self._telling] != self._told:
                self.set_modes()
        for what, tensor in given.items():
            if _version(tensor) != versions[what]:
                raise SettingsError(f"{who} changes its {what} in place, which others look at; clone them.")
        if _forms(self._state) != self._forms:
            raise SettingsError(self._changed(who))

    def set_modes(self) -> None:
        """The modes of the network's modules as they were."""
        for module, training in self._modes:
            module.training = training

    def _changed(self, who: str) -> str:
        """In which tensor the state differs from what was declared."""
        now = {name: said(value) for name, value in self._state.tensors().items()}
        name = min(name for name in {**now, **self._said} if now.get(name) != self._said.get(name))
        was, became = (found.get(name, "nothing") for found in (self._said, now))
        return (
            f"{who} leaves {became} as {name}, where begin declared {was}. Declare it in begin, at its full size (as "
            "rotta's bank), and write into it: only so can it be reset, taken back and saved."
        )


def _forms(state: State) -> _Forms:
    """The names in each group, and shape and type of what is the method's own; others are the network's."""
    return {
        "parameters": dict.fromkeys(state.parameters),
        "buffers": dict.fromkeys(state.buffers),
        "memory": {name: _form(value) for name, value in state.memory.items()},
        "output": {name: _form(value) for name, value in state.output.items()},
    }


def _form(value: object) -> tuple[torch.Size, torch.dtype] | None:
    return (value.shape, value.dtype) if isinstance(value, Tensor) else None


def _version(tensor: Tensor) -> int:
    """Counts what was written to a tensor; always 0 of one made under inference mode, which has no count."""
    return 0 if tensor.is_inference() else tensor._version
