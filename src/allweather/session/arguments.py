"""What a session may be made of, or one clear word about what came instead."""

from typing import Any

from torch import nn

from allweather import methods
from allweather.errors import NetworkError, SettingsError
from allweather.methods.method import Method
from allweather.methods.own import checked
from allweather.models.inputs import segmenter_in
from allweather.models.segmenter import Segmenter
from allweather.session.guard import Guard
from allweather.session.shift import Shift

_LOWEST, _HIGHEST = -(2**63), 2**64 - 1  # seeds that torch's generators take


def check_model(model: Any, asker: str, call: str) -> Segmenter:
    """The segmenter.

    Args:
        asker: the name of what it was given to.
        call: how that is called with a network of one's own, `{}` for the segmenter.

    Raises:
        NetworkError: for anything else.
    """
    if isinstance(model, Segmenter):
        return model
    if isinstance(model, nn.Module) and (form := segmenter_in(model, Segmenter)):
        raise NetworkError(f"{asker}: expected a Segmenter, got {form}.")
    what = "the network" if isinstance(model, nn.Module) else f"a {type(model).__name__}"
    wrapped = call.format("allweather.Segmenter.wrap(network, classes=…, mean=…, std=…)")
    raise NetworkError(f"{asker}: expected a Segmenter, got {what} itself. Call {wrapped}.")


def check_method(model: Any, method: Any) -> Method:
    """The method, made by its name where a name was given.

    Raises:
        NetworkError: when `model` is no segmenter.
        SettingsError: when `method` is neither a method nor a name, or of an own class that is no complete method.
    """
    model = check_model(model, "Session", "Session({}, method)")
    if isinstance(method, str):
        return methods.make(method, model=model)
    if not isinstance(method, Method):
        call = f"{method.__name__}()" if isinstance(method, type) else "allweather.methods.MallDomain()"
        raise SettingsError(
            f"Session: expected a method or its name, got {method!r}. Call Session(model, {call}) or "
            'Session(model, "mall-domain").'
        )
    if type(method) not in methods.METHODS.values():
        checked(type(method).__name__, type(method), methods.METHODS)
    return method


def check_seed(seed: Any) -> int:
    """The seed.

    Raises:
        SettingsError: when it is no integer, or one that no generator takes.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not _LOWEST <= seed <= _HIGHEST:
        raise SettingsError(f"seed: expected an integer of −2^63 to 2^64 − 1, got {seed!r:.60}.")
    return seed


def check_shift(shift: Any) -> Shift:
    """What counts as a shift; its defaults for None.

    Raises:
        SettingsError: for anything else.
    """
    if shift is None or isinstance(shift, Shift):
        return shift or Shift()
    raise SettingsError(
        f"Session.shift: expected a Shift, such as allweather.session.Shift(threshold=0.05); got {shift!r:.60}."
    )


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
