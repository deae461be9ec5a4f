"""What a session may be made of, or one clear word about what came instead."""

from typing import Any

from torch import nn

from allweather import methods
from allweather.errors import NetworkError, SettingsError
from allweather.methods.method import Method
from allweather.models.inputs import segmenter_in
from allweather.models.segmenter import Segmenter
from allweather.session.guard import Guard


def check_method(model: Any, method: Any) -> Method:
    """The method, made by its name where a name was given.

    Raises:
        NetworkError: when `model` is no segmenter.
        SettingsError: when `method` is neither a method nor a name.
    """
    if not isinstance(model, Segmenter):
        if isinstance(model, nn.Module) and (form := segmenter_in(model, Segmenter)):
            raise NetworkError(f"Session: expected a Segmenter, got {form}.")
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


def check_seed(seed: Any) -> int:
    """The seed.

    Raises:
        SettingsError: when it is no integer.
    """
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise SettingsError(f"Session.seed: expected an integer, got {seed!r}.")
    return seed


def check_guard(guard: Any) -> Guard:
    """The guard; its defaults for None and True, one that accepts every finite prediction for False.

    Raises:
        SettingsError: for anything else.
    """
    if isinstance(guard, Guard):
        return guard
    if guard is None or isinstance(guard, bool):
        return Guard(enabled=guard is not False)
    raise SettingsError(f"Session.guard: expected a Guard, or False to accept every finite prediction; got {guard!r}.")
