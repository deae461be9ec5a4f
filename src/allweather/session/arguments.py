"""What a session is made with, checked: errors that name the argument and the call that works."""

from typing import Any

from torch import nn

from allweather import methods
from allweather.errors import NetworkError, SettingsError
from allweather.methods.method import Method
from allweather.models.segmenter import Segmenter
from allweather.session.guard import Guard


def checked_method(model: Any, method: Any) -> Method:
    """The method of a session on `model`, made from its name where that came."""
    if not isinstance(model, Segmenter):
        what = "the network" if isinstance(model, nn.Module) else f"a {type(model).__name__}"
        raise NetworkError(
            f"Session: expected a Segmenter, got {what} itself. "
            "Call Session(allweather.Segmenter.wrap(network, classes=…, mean=…, std=…), method)."
        )
    if isinstance(method, str):
        return methods.make(method, model=model)
    if not isinstance(method, Method):
        call = f"{method.__name__}()" if isinstance(method, type) else "allweather.methods.MallDomain()"
        raise SettingsError(
            f"Session: expected a method or its name, got {method!r}. Call Session(model, {call}) or "
            'Session(model, "mall-domain").'
        )
    return method


def checked_seed(seed: Any) -> int:
    """The seed, an integer."""
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise SettingsError(f"Session.seed: expected an integer, got {seed!r}.")
    return seed


def checked_guard(guard: Any) -> Guard:
    """The guard, from True, False or None too."""
    if isinstance(guard, Guard):
        return guard
    if guard is None or isinstance(guard, bool):
        return Guard(enabled=guard is not False)
    raise SettingsError(f"Session.guard: expected a Guard, or False to accept every finite prediction; got {guard!r}.")
