"""Sessions to export, and what a network that came back predicts."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tiny import CLASSES, frames
from torch import Tensor, nn

from allweather import Segmenter, Session, methods

TEACHER = {"threshold": 0.0, "teacher": 0.5, "lr": 1e-3}  # one view of each image, and a teacher that moves
PICTURE = frames(1, seed=9)[0]


def session_of(model: Segmenter, name: str = "mall-domain", count: int = 4, **settings: Any) -> Session:
    """A session that has adapted to a few frames, its prediction that of one plain view."""
    plain: dict[str, Any] = {
        "mall-domain": {"views": ("plain",), "vector_rate": 0.0},
        "tent": {"episodic": False},
        "cotta": TEACHER,
        "rotta": {"every": 1, "teacher": 0.5},
    }
    session = Session(model, methods.make(name, settings=plain.get(name, {}) | settings, model=model), guard=False)
    for image in frames(count):
        session(image)
    return session


def through(network: nn.Module, model: Segmenter, image: Tensor = PICTURE) -> Tensor:
    """Log-probabilities C×H×W of a plain network under the model's preprocessing."""
    with torch.no_grad():
        return Segmenter(network, classes=CLASSES, preprocessing=model.preprocessing)(image[None])[0].log_softmax(0)


def probabilities(session: Session, image: Tensor = PICTURE) -> Tensor:
    return session.predict(image).log_softmax(0)


def read_about(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return dict(json.loads(file.metadata()["allweather"]))
