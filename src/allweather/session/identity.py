"""What a saved session must share with the one that loads it, in words."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from allweather.methods.settings import settings_of
from allweather.models.segmenter import Segmenter

if TYPE_CHECKING:
    from allweather.session.session import Session

_FORMAT = "4"  # of saved sessions


def identity_of(session: "Session", weights: str) -> dict[str, str]:
    """Setting by setting; `weights` is the source network's digest."""
    shift = asdict(session.shift) if session.adapt_when == "shift" else {}
    return {
        "format": _FORMAT,
        "network": session.model.name,
        "weights": weights,
        "device": next((p.device.type for p in session.model.parameters()), "cpu"),
        "adapt_when": session.adapt_when,
        "precision": session.precision,
        "seed": str(session.seed),
        **_meaning(session.model),
        **{k: str(v) for k, v in settings_of(session.method).items()},
        **{f"guard.{k}": str(v) for k, v in asdict(session.guard).items()},
        **{f"shift.{k}": str(v) for k, v in shift.items()},
    }


def _meaning(model: Segmenter) -> dict[str, str]:
    """What the network's input and output mean, which no weight says: learnt under one meaning, wrong under another."""
    expected = {name: tuple(v) if isinstance(v, list | tuple) else v for name, v in asdict(model.preprocessing).items()}
    return {
        "classes": ", ".join(model.classes.names),
        "extra_logits": str(model.extra_logits),
        "probabilities": str(model.probabilities),
        "bn_share": str(model.facts.bn_share),
        "window": str(model.window and asdict(model.window)),
        **{f"preprocessing.{name}": str(value) for name, value in expected.items()},
    }
