"""A prediction as bytes: labels as a PNG whose values are classes, or JSON with shares and what was decided."""

import base64
from typing import Any

import numpy as np

from allweather.classes import ClassSet
from allweather.finite import or_none
from allweather.pictures.drawing import palette_of
from allweather.pictures.writing import encode_image
from allweather.session import Result


def label_png(labels: np.ndarray, classes: ClassSet) -> bytes:
    """H×W classes as a PNG that holds their values; viewers show their colors."""
    palette = palette_of(classes).ravel().tolist() if labels.dtype == np.uint8 else None
    return encode_image(labels, palette=palette)


def shares(labels: np.ndarray, classes: ClassSet) -> dict[str, float]:
    """The share of pixels of each class that occurs, 0..1, the largest first."""
    counts = np.bincount(labels.ravel(), minlength=len(classes))[: len(classes)]
    found = {classes.names[index]: float(counts[index] / labels.size) for index in np.flatnonzero(counts)}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def facts(result: Result) -> dict[str, Any]:
    """How a prediction came about, ready for JSON."""
    return {
        "decision": result.decision.kind,
        "reason": result.decision.reason,
        "iterations": result.iterations,
        "losses": or_none(result.losses),
        "stop": result.stop,
        "seconds": round(result.seconds, 4),
    }


def as_json(result: Result, labels: np.ndarray, classes: ClassSet) -> dict[str, Any]:
    """The whole answer, with the label PNG in base64."""
    return {
        "width": labels.shape[1],
        "height": labels.shape[0],
        "classes": list(classes.names),
        "shares": {name: round(share, 6) for name, share in shares(labels, classes).items()},
        **facts(result),
        "labels_png": base64.b64encode(label_png(labels, classes)).decode("ascii"),
    }
