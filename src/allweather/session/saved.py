"""A saved session opened without knowing how it was made: its settings are in the file."""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

from allweather import methods
from allweather.errors import AllWeatherError, CheckpointError, SettingsError, first_line
from allweather.methods.method import Method
from allweather.methods.own import find_method
from allweather.methods.settings import parse_fields, parse_settings
from allweather.models.segmenter import Segmenter
from allweather.plugins import names_code
from allweather.session.adapted import Precision
from allweather.session.guard import Guard
from allweather.session.identity import field_of
from allweather.session.session import AdaptWhen, Session
from allweather.session.shift import Shift
from allweather.session.storage import is_same_network, read_identity
from allweather.values import parse_value

T = TypeVar("T", Guard, Shift)


def open_saved(
    path: Path,
    model: Segmenter,
    method: str | None = None,
    settings: Mapping[str, str] | None = None,
    *,
    anywhere: bool = False,
) -> Session:
    """The session that `Session.save` wrote to `path`, on the network that it was of.

    Args:
        model: that network, with the weights that were adapted.
        method: of one's own, as `mymethod.py:MyMethod`; methods of this package are known from the file.
        settings: fields of the method as text, needed for those that name code, such as views of one's own: a file
            names none. Others are known from the file.
        anywhere: whether the session may have been on another kind of device. What it learnt is exact then, which is
            enough to export it; its random numbers begin anew.

    Raises:
        CheckpointError: for a file that is none, is damaged, or belongs to another network, device or `settings`.
        SettingsError: for a method that is not of this package, where `method` does not name it; for a field that names
            code, where `settings` do not; and for a saved value that its setting does not allow.
    """
    identity = read_identity(path)
    try:
        known = _method(path, identity, method, settings or {})
        options: dict[str, Any] = {
            "seed": parse_value("seed", identity["seed"], int),
            "precision": parse_value("precision", identity["precision"], Precision),
            "guard": _part(Guard, "guard", identity),
            "adapt_when": parse_value("adapt_when", identity["adapt_when"], AdaptWhen),
            "shift": _part(Shift, "shift", identity) if "shift.threshold" in identity else None,
        }
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged, or of another version: it lacks the setting {error}.") from error
    session = _begin(path, identity, model, known, options)
    session._load(path, saved_device(path) if anywhere else "")
    return session


def saved_device(path: Path) -> str:
    """The kind of device that the session was on.

    Raises:
        CheckpointError: for a file that is none.
    """
    return read_identity(path).get("device", "cpu")


def _begin(
    path: Path, identity: Mapping[str, str], model: Segmenter, method: Method, options: Mapping[str, Any]
) -> Session:
    """A session as the saved one began; another network is refused by name, where its weights are others too."""
    network, reason = identity.get("network"), "its weights are others"
    try:
        session = Session(model, method, **options)
        if network == model.name or is_same_network(identity, session._identity()):
            return session
    except AllWeatherError as error:
        if network == model.name:
            raise
        reason = first_line(error)
    raise CheckpointError(
        f"{path} is a session of {network}, this network is {model.name} ({reason}). Name the network that was "
        "adapted, with the checkpoint that it had."
    )


def _method(path: Path, identity: Mapping[str, str], own: str | None, settings: Mapping[str, str]) -> Method:
    name = identity["name"]
    if own is None and name not in methods.METHODS:
        raise SettingsError(
            f"{path} was adapted by {name}, a method of your own. Say where it is: --method mymethod.py:MyMethod."
        )
    kind = find_method(own or name, methods.METHODS)
    if kind.name != name:
        raise SettingsError(f"{path} was adapted by {name}, not by {kind.name}. Leave --method out, or name that one.")
    values = {field.name: _text(field_of(identity, field.name)) for field in fields(cast(Any, kind))}
    if code := [f"{field}={text}" for field, text in values.items() if field not in settings and names_code(text)]:
        raise SettingsError(
            f"{path} names code: {code[0]}. Files run none. Where it is code of your own, say so: --set {code[0]}."
        )
    return kind(**parse_settings(kind, {**values, **settings}))


def _part(kind: type[T], group: str, identity: Mapping[str, str]) -> T:
    """A guard, or what counts as a shift, from its saved fields."""
    texts = {field.name: _text(identity[f"{group}.{field.name}"]) for field in fields(kind)}
    return kind(**parse_fields(kind, texts, group))


def _text(saved: str) -> str:
    """A saved value as the command line takes it: none for None, and lists without brackets."""
    if saved == "None":
        return "none"
    items = re.fullmatch(r"[\[(](.*?),?[\])]", saved)
    return saved if items is None else ",".join(item.strip().strip("'") for item in items[1].split(","))
