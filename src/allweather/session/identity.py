"""What a saved session must share with the one that loads it, in words."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_type_hints

from allweather.models.segmenter import Segmenter
from allweather.session.adapted import AdaptedNetwork
from allweather.session.guard import Guard
from allweather.session.shift import Shift
from allweather.session.storage import OUTPUT
from allweather.values import plain_value

_FORMAT = "4"  # of saved sessions


def identity_of(settings: Mapping[str, Any], adapted: AdaptedNetwork) -> dict[str, str]:
    """The network and its meaning, and `Session.settings` one by one; but for those that change no state."""
    found = {
        "format": _FORMAT,
        "network": adapted.model.name,
        "weights": adapted.source_digest,
        "device": adapted.device().type,
        **{name: str(settings[name]) for name in ("adapt_when", "precision", "seed")},
        **_meaning(adapted.model),
    }
    # a field of somebody's own method may bear one of these names
    method = {
        f"method.{name}" if name in found else name: value
        for name, value in _spelt(settings["method"], type(adapted.method)).items()
    }
    limits = {
        f"{group}.{name}": value
        for group, kind in (("guard", Guard), ("shift", Shift))
        for name, value in _spelt(settings.get(group, {}), kind).items()
    }
    return {**found, **method, **limits}


def field_of(identity: Mapping[str, str], name: str) -> str:
    """The saved text of a field of the method, which may bear the name of something else.

    Raises:
        KeyError: where there is none.
    """
    return identity[f"method.{name}" if f"method.{name}" in identity else name]


def _spelt(values: Mapping[str, Any], kind: type[Any]) -> dict[str, str]:
    """The values of the fields of `kind`, as its types have them."""
    hints = get_type_hints(kind)
    return {name: str(plain_value(value, hints.get(name, Any))) for name, value in values.items()}


def _meaning(model: Segmenter) -> dict[str, str]:
    """What the network's input and output mean, which no weight says: learnt under one meaning, wrong under another."""
    expected = {name: tuple(v) if isinstance(v, list | tuple) else v for name, v in asdict(model.preprocessing).items()}
    return {
        "classes": ", ".join(model.classes.names),
        "extra_logits": str(model.extra_logits),
        "probabilities": str(model.probabilities),
        "bn_share": str(model.facts.bn_share),
        "window": str(model.window and asdict(model.window)),
        OUTPUT: re.sub(r" at 0x\w+", "", repr(model.output)),  # functions by name, not by address
        **{f"preprocessing.{name}": str(value) for name, value in expected.items()},
    }
