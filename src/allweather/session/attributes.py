"""What a network keeps as plain attributes, such as a last output that the next frame is mixed with, or a count."""

import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from itertools import chain
from operator import is_
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np
from torch import ScriptMethod, Tensor, nn

from allweather.export.ordinary import LEFT
from allweather.methods.normalization import TestTimeStatistics
from allweather.models.copying import AdoptedBatchNorm
from allweather.models.segmenter import Segmenter
from allweather.plugins import FAULTS

Values = Mapping[tuple[int, str], Any]  # by the module's number and the attribute's name
_MODULES = frozenset(vars(nn.Module()))
_DICTS, _LISTS = (dict, OrderedDict, defaultdict, set), (list, deque)  # which hooks may write to
_PLAIN = {int, float, str, type(None)}  # most of what large tables hold
_ABSENT = object()


class OwnAttributes:
    """Plain attributes that a network, or a hook of a layer, sets or changes by itself.

    Noticed are another value in one's place, and a change within tensors, arrays, dataclasses, lists, tuples, deques,
    sets and dicts. Objects of other classes stay the same objects. Which attributes move is found out as `OwnBuffers`
    does it. Saved sessions do not have them: a loaded one begins with what the network came with.

    Args:
        network: the session's copy, as it came.
    """

    def __init__(self, network: nn.Module) -> None:
        named = dict(network.named_modules())
        self._network, self._names, self._modules = network, list(named), list(named.values())
        self._moving: set[tuple[int, str]] = set()
        self.begin()
        self._source = {
            (number, key): self._copied(value)
            for number, module in enumerate(self._modules)
            for key, value in vars(module).items()
            if _counts(module, key)
        }

    def __getstate__(self) -> dict[str, Any]:
        self.look()  # a copy's tensors are others
        return {name: value for name, value in vars(self).items() if name not in ("_own", "_last", "_open")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.begin()

    def take(self) -> Values:
        """Copies of the attributes known to move."""
        self.look()
        now = {(number, key): vars(self._modules[number]).get(key, _ABSENT) for number, key in self._moving}
        return {place: self._copied(value) for place, value in now.items() if value is not _ABSENT}

    def restore(self, values: Values) -> None:
        """Sets them again; one that `values` do not name had not moved then, and is as the network came."""
        self.look()
        self._moving |= values.keys()
        for number, key in self._moving:
            held = vars(self._modules[number])
            value, now = values.get((number, key), self._source.get((number, key), _ABSENT)), held.get(key)
            if value is _ABSENT:
                held.pop(key, None)
            elif not _written(now, value := self._copied(value)):
                held[key] = value

    def warn_unsaved(self) -> None:
        """Warns of those that a saved session lacks."""
        self.look()
        held = {place: vars(self._modules[place[0]]).get(place[1], _ABSENT) for place in self._moving}
        began = {place: self._source.get(place, _ABSENT) for place in held}
        moved = [
            place
            for place, value in held.items()
            if not _keeps_nothing(value) and self._mark(value) != self._mark(began[place])
        ]
        if names := sorted(f"{self._names[number]}.{key}".removeprefix("network.") for number, key in moved):
            told = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            warnings.warn(
                f"the network keeps {told} from frame to frame, not in buffers: a saved session has none of it. Where "
                "a later frame depends on it, use register_buffer.",
                stacklevel=3,
            )

    def look(self) -> None:
        """Takes note of what has moved."""
        for number, (module, last) in enumerate(zip(self._modules, self._last, strict=True)):
            held = vars(module)
            if len(held) == len(last) and all(map(is_, held.values(), last.values())):
                continue
            for key in held.keys() | last.keys():
                was, now = last.get(key, _ABSENT), held.get(key, _ABSENT)
                if was is now or not _counts(module, key):
                    continue
                if _is_open(now) or self._mark(was) != self._mark(now):
                    self._moving.add((number, key))
            self._last[number] = {key: value for key, value in held.items() if (number, key) not in self._moving}
        for number, (value, mark, places) in list(self._open.items()):
            if places <= self._moving or self._mark(value) != mark:
                self._moving |= places
                del self._open[number]

    def begin(self) -> None:
        """Notes what the attributes are; what can change within, by its mark too. A deep copy's functions come last."""
        self._own = {id(each): each for each in chain(self._network.parameters(), self._network.buffers())}
        self._last = [dict(vars(module)) for module in self._modules]
        self._open: dict[int, tuple[Any, Any, set[tuple[int, str]]]] = {}  # one that modules share is looked at once
        for number, module in enumerate(self._modules):
            for key, value in vars(module).items():
                if _is_open(value) and _counts(module, key) and (number, key) not in self._moving:
                    mark = self._open[id(value)][1] if id(value) in self._open else self._mark(value)
                    self._open.setdefault(id(value), (value, mark, set()))[2].add((number, key))

    def _mark(self, value: Any, within: tuple[int, ...] = ()) -> Any:
        """What tells a value from what it was before: of a tensor identity and version."""
        if isinstance(value, Tensor):
            return id(value), 0 if id(value) in self._own or value.is_inference() else value._version
        if isinstance(value, np.ndarray):
            return str(value.dtype), value.shape, value.tobytes()
        if isinstance(value, (int, float, complex, str, bytes, np.generic)):
            return type(value), value
        if id(value) in within or not (isinstance(value, tuple) or _is_open(value)):
            return id(value)
        within = (*within, id(value))
        parts = _parts(value)
        held = [*parts, *parts.values()] if isinstance(parts, dict) else parts
        return [each if type(each) in _PLAIN else self._mark(each, within) for each in held]

    def _copied(self, value: Any) -> Any:
        """The same with copies of all that can change within; the network's own parameters and buffers stay."""
        try:
            return self._copy(value, {})
        except FAULTS:  # of a class that refuses it
            return value

    def _copy(self, value: Any, memo: dict[int, Any]) -> Any:
        if id(value) in self._own or not _is_open(value):
            return value
        if id(value) in memo:
            return memo[id(value)]
        made: Any
        if isinstance(value, Tensor):
            made = value.detach().clone()
        elif isinstance(value, tuple):
            items = [self._copy(each, memo) for each in value]
            made = value._make(items) if hasattr(value, "_make") else type(value)(items)
        else:
            made = memo[id(value)] = copy(value)
            if is_dataclass(made) and not isinstance(made, dict):
                for name, each in _parts(value).items():
                    object.__setattr__(made, name, self._copy(each, memo))
            elif isinstance(made, (dict, list, deque)):
                for key, each in value.items() if isinstance(value, dict) else enumerate(value):
                    made[key] = self._copy(each, memo)
        memo[id(value)] = made
        return made


def _counts(module: nn.Module, key: str) -> bool:
    """Whether an attribute may be the network's own state: no module's, no session's, none that weight_norm computes.

    Hooks that a pass registers stay, and so does what says that they are there.
    """
    if isinstance(module, (TestTimeStatistics, AdoptedBatchNorm)) and key in LEFT:
        return False
    if isinstance(module, Segmenter) and (type(module) is Segmenter or key in ("_checked", "_masks")):
        return False
    computed = any(f"{key}_{source}" in module._parameters for source in ("g", "orig"))
    return not (key in _MODULES or "hooks" in key or computed)


def _keeps_nothing(value: Any) -> bool:
    """Whether it is a number, mostly a size of the last picture, or a function that holds nothing."""
    if isinstance(value, FunctionType):
        return not value.__closure__
    if isinstance(value, (MethodType, BuiltinFunctionType)):
        return isinstance(value.__self__, (nn.Module, ModuleType, NoneType))
    return type(value) is int or isinstance(value, ScriptMethod)


def _is_open(value: Any) -> bool:
    """Whether it is of a kind that can change within."""
    if isinstance(value, (Tensor, np.ndarray, list, dict, deque, set)):
        return True
    if isinstance(value, tuple):
        return any(map(_is_open, value))
    return is_dataclass(value) and not isinstance(value, (type, nn.Module))


def _parts(value: Any) -> Any:
    """What a container holds: a dict by key, a dataclass by field, anything else in order."""
    if isinstance(value, dict) or not is_dataclass(value):
        return value
    return {each.name: getattr(value, each.name) for each in fields(value) if hasattr(value, each.name)}


def _written(now: Any, value: Any) -> bool:
    """Whether `value` could be written into what is there, which hooks may hold."""
    if now is value or type(now) is not type(value):
        return now is value
    if type(now) in _DICTS:
        now.clear()
        now.update(value)
    elif type(now) in _LISTS:
        now.clear()
        now.extend(value)
    elif isinstance(now, np.ndarray) and now.flags.writeable and (now.shape, now.dtype) == (value.shape, value.dtype):
        now[...] = value
    elif is_dataclass(now) and not isinstance(now, dict):
        for name, each in _parts(value).items():
            object.__setattr__(now, name, each)
    else:
        return False
    return True
