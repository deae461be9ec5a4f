"""Deep copies of networks whose functions work on the copy's parts; `copy.deepcopy` keeps functions as they are."""

import dis
import pickle
from collections.abc import Iterator
from copy import deepcopy
from functools import WRAPPER_ASSIGNMENTS, partial
from operator import is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar, cast

from torch import Tensor

from allweather.errors import first_line

T = TypeVar("T")
UNCOPYABLE = (
    TypeError, RuntimeError, ValueError, AttributeError, NotImplementedError, RecursionError, pickle.PicklingError,
)  # fmt: skip  # what deepcopy raises
_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, tuple)  # what deepcopy keeps, or what may be within it


def deep_copy(thing: T, memo: dict[int, Any]) -> T:
    """As `copy.deepcopy`, but that a function of the copy which holds parts of the original is made anew, over those.

    Such are an instance's own forward, and hooks. A function holds what is in its closure, its defaults and attributes
    (what it decorates), its partial's arguments, its method's object, and globals of its file that it names. One that
    holds nothing of the original stays the same function.

    Raises:
        TypeError: and others of deepcopy's, also for what such a function holds beside.
    """
    copy = deepcopy(thing, memo)
    _Functions(memo).renew()
    return copy


class _Functions:
    """The functions of a copy.

    Args:
        memo: deepcopy's: each copied thing by the `id` of its original, which it keeps alive.
    """

    def __init__(self, memo: dict[int, Any]) -> None:
        self._memo = memo
        self._copies: set[int] = set()
        self._free: dict[int, Any] = {}  # what holds nothing of the original, by its id
        self._globals: dict[int, _Globals] = {}
        self._at = "a function"  # made anew at present

    def renew(self) -> None:
        """Puts functions over the copy's parts in the place of the original's, wherever a copied thing holds one."""
        done = {id(self._memo)}  # there deepcopy keeps the originals
        while added := [key for key in self._memo if key not in done]:
            done.update(added)
            copied = [self._memo[key] for key in added if id(self._memo[key]) != key]
            self._copies.update(map(id, copied))
            for copy in copied:
                self._renew_in(copy)

    def _renew_in(self, copy: Any) -> None:
        if isinstance(copy, partial):
            arguments = {name: self._over(value) for name, value in copy.keywords.items()}
            copy.__setstate__((self._over(copy.func), self._over(copy.args), arguments, vars(copy)))  # type: ignore[attr-defined]
        holders: list[Any] = [copy] if isinstance(copy, (list, dict)) else []
        if hasattr(copy, "__dict__") and not isinstance(copy, type):
            holders.append(vars(copy))
        for holder in holders:
            for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
                if isinstance(value, _FUNCTIONS) and (over := self._over(value)) is not value:
                    holder[key] = over

    def _over(self, thing: Any) -> Any:
        """What the copy has in the place of a thing; the thing itself where that holds nothing of the original."""
        if isinstance(thing, MethodType):
            of = thing.__func__, thing.__self__
            return thing if (over := self._over(of)) is of else MethodType(*over)
        if type(thing) is tuple:
            items = tuple(map(self._over, thing))
            return thing if all(map(is_, items, thing)) else items
        if id(thing) in self._copies or not self._reaches(thing):
            return thing
        if id(thing) in self._memo:
            return self._memo[id(thing)]
        if isinstance(thing, BuiltinFunctionType):
            return getattr(self._over(thing.__self__), thing.__name__)
        if isinstance(thing, FunctionType):
            compiled = vars(thing).get("_torchdynamo_orig_callable")
            return self._anew(thing) if compiled is None else self._over(compiled)
        self._free.clear()
        try:
            return deepcopy(thing, self._memo)
        except UNCOPYABLE as error:
            raise TypeError(
                f"{self._at} holds a part of the network in a {type(thing).__name__}: {first_line(error)}"
            ) from error

    def _anew(self, function: FunctionType) -> FunctionType:
        self._at = function.__qualname__
        held = [cell for cell in function.__closure__ or () if any(map(self._reaches, _content(cell)))]
        fresh = [cell for cell in held if id(cell) not in self._memo]
        self._memo.update((id(cell), CellType()) for cell in fresh)  # filled when what they hold can refer to them
        closure = tuple(self._memo.get(id(cell), cell) for cell in function.__closure__ or ())
        names = {name: value for name, value in _globals(function).items() if self._reaches(value)}
        live = function.__globals__
        space = self._globals.setdefault(id(live), _Globals(live)) if names else live
        anew = FunctionType(function.__code__, space, function.__name__, None, closure)
        self._memo[id(function)] = anew
        self._copies.update((id(anew), *(id(self._memo[id(cell)]) for cell in fresh)))
        for cell in fresh:
            self._memo[id(cell)].cell_contents = self._over(cell.cell_contents)
        space.update((name, self._over(value)) for name, value in names.items())
        anew.__defaults__ = self._over(function.__defaults__)
        anew.__kwdefaults__ = {name: self._over(value) for name, value in (function.__kwdefaults__ or {}).items()}
        vars(anew).update((name, self._over(value)) for name, value in vars(function).items())
        for name in WRAPPER_ASSIGNMENTS:
            setattr(anew, name, getattr(function, name))
        return anew

    def _reaches(self, thing: Any) -> bool:
        """Whether it is of the original, or holds something that is."""
        seen: dict[int, Any] = {}
        waiting = [thing]
        while waiting:
            each = waiting.pop()
            if self._memo.get(id(each), each) is not each:
                return True
            if not any(id(each) in known for known in (seen, self._free, self._copies)):
                seen[id(each)] = each
                waiting.extend(_held(each))
        self._free |= seen
        return False


class _Globals(dict[str, Any]):
    """A file's globals as they are at each moment, but for the names that are set here."""

    def __init__(self, live: dict[str, Any]) -> None:
        super().__init__({name: live[name] for name in ("__builtins__", "__name__") if name in live})
        self._live = live

    def __missing__(self, name: str) -> Any:
        return self._live[name]


def _held(thing: Any) -> Iterator[Any]:
    """What a thing holds."""
    if isinstance(thing, (type, ModuleType, Tensor)):
        return
    if isinstance(thing, FunctionType):
        for cell in thing.__closure__ or ():
            yield from _content(cell)
        yield from (thing.__defaults__, thing.__kwdefaults__, *_globals(thing).values())
    elif isinstance(thing, MethodType):
        yield from (thing.__func__, thing.__self__)
    elif isinstance(thing, BuiltinFunctionType):
        yield thing.__self__
    elif isinstance(thing, partial):
        yield from (thing.func, thing.args, thing.keywords)
    elif isinstance(thing, dict):
        yield from list(dict.values(thing))
    elif isinstance(thing, (list, tuple, set, frozenset)):
        yield from list(thing)
    yield from list(getattr(thing, "__dict__", {}).values())


def _content(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # empty yet
        return []


def _globals(function: FunctionType) -> dict[str, Any]:
    """The globals that a function names, by name; of functions those of its own file."""
    found = {}
    for name in _global_names(function.__code__):
        try:
            value = function.__globals__[name]
        except KeyError:  # a builtin
            continue
        if not isinstance(value, FunctionType) or value.__globals__ is function.__globals__:
            found[name] = value
    return found


def _global_names(code: CodeType) -> set[str]:
    names = {cast(str, each.argval) for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"}
    return names.union(*(_global_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))
