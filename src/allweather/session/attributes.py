"""Tensors that a network keeps as plain attributes, such as a last output that the next frame is mixed with."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

Values = Mapping[tuple[int, str], Any]  # by the module's number and the attribute's name
_MODULES = frozenset(vars(nn.Module()))
_LIBRARIES = ("torch.", "allweather.")  # whose modules keep nothing so
_ABSENT = object()


class OwnAttributes:
    """Plain attributes with tensors, also in lists, tuples and dicts, that a network sets or changes by itself.

    Which ones do is found out as `OwnBuffers` does it. Saved sessions do not have them: a loaded one begins with what
    the network came with.

    Args:
        network: the session's copy, as it came.
    """

    def __init__(self, network: nn.Module) -> None:
        own = {n: each for n, each in network.named_modules() if not type(each).__module__.startswith(_LIBRARIES)}
        self._names, self._modules = list(own), list(own.values())
        self._source = {
            (number, key): _copied(value)
            for number, module in enumerate(self._modules)
            for key, value in vars(module).items()
            if key not in _MODULES and (value is None or isinstance(value, (Tensor, list, tuple, dict)))
        }
        self._moving: set[tuple[int, str]] = set()
        self._marks = self._marked()

    def __getstate__(self) -> dict[str, Any]:
        self.look()  # a copy's tensors are others
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._marks = self._marked()

    def take(self) -> Values:
        """Copies of the attributes known to move."""
        self.look()
        now = {(number, key): vars(self._modules[number]).get(key, _ABSENT) for number, key in self._moving}
        return {place: _copied(value) for place, value in now.items() if value is not _ABSENT}

    def restore(self, values: Values) -> None:
        """Sets them again; one that `values` do not name had not moved then, and is as the network came."""
        self.look()
        for number, key in self._moving | values.keys():
            held = vars(self._modules[number])
            value, now = _copied(values.get((number, key), self._source.get((number, key), _ABSENT))), held.get(key)
            if value is _ABSENT:
                held.pop(key, None)
            elif type(now) is type(value) is dict:  # which hooks may write to
                now.clear()
                now.update(value)
            elif type(now) is type(value) is list:
                now[:] = value
            else:
                held[key] = value

    def warn_unsaved(self) -> None:
        """Warns of those that a saved session lacks."""
        self.look()
        if names := sorted(f"{self._names[number]}.{key}".removeprefix("network.") for number, key in self._moving):
            told = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            warnings.warn(
                f"the network keeps {told} from frame to frame, not in buffers: a saved session has none of it. Where "
                "a later frame depends on it, use register_buffer.",
                stacklevel=3,
            )

    def look(self) -> None:
        """Takes note of what has moved."""
        self._moving |= {place for place, mark in self._marked().items() if self._marks.get(place) != mark}

    def _marked(self) -> dict[tuple[int, str], list[tuple[int, int]]]:
        """What tells each attribute with tensors from what it was before, but of those known to move."""
        return {
            (number, key): mark
            for number, module in enumerate(self._modules)
            for key, value in vars(module).items()
            if key not in _MODULES and (number, key) not in self._moving and (mark := _mark(value))
        }


def _mark(value: Any) -> list[tuple[int, int]]:
    """Identity and version of each tensor within."""
    if isinstance(value, Tensor):
        return [(id(value), 0 if value.is_inference() else value._version)]
    if not isinstance(value, (list, tuple, dict)):
        return []
    return [mark for each in (value.values() if isinstance(value, dict) else value) for mark in _mark(each)]


def _copied(value: Any) -> Any:
    """The same with copies of the tensors within."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) is dict:
        return {key: _copied(each) for key, each in value.items()}
    return type(value)(map(_copied, value)) if type(value) in (list, tuple) else value
