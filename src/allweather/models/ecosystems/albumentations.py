"""Pixel values as an evaluation transform of albumentations makes them, read from its JSON file."""

import json
from pathlib import Path
from typing import Any

from allweather.errors import NetworkError

SIZES = (  # steps that set the size, which here is the user's
    "Resize", "LongestMaxSize", "SmallestMaxSize", "PadIfNeeded", "CenterCrop", "RandomCrop", "Crop", "CropAndPad",
)  # fmt: skip
FORMAT = ("ToTensorV2", "ToTensor3D", "NoOp")
BYTES = 255.0


def pixel_values(file: Path | None, label: str) -> dict[str, Any] | None:
    """`mean`, `std` and `value_range` of `Preprocessing` for the transform in `file`; None where there is no file.

    A transform without Normalize leaves bytes as they are, so that the network sees 0..255.

    Raises:
        NetworkError: when the file is damaged, or has a step that does something else to pixel values.
    """
    if file is None:
        return None
    try:
        steps = json.loads(file.read_text(encoding="utf-8-sig"))["transform"]["transforms"]
        names = [str(step["__class_fullname__"]).rpartition(".")[2] for step in steps]
        found: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "value_range": BYTES}
        for name, step in zip(names, steps, strict=True):
            found |= _step(name, step, found["value_range"], label)
    except (KeyError, TypeError, ValueError) as error:
        raise NetworkError(
            f"{label}: {file.name} is no transform of albumentations ({error!r}). Fetch it again."
        ) from error
    return found


def _step(name: str, step: dict[str, Any], value_range: float, label: str) -> dict[str, Any]:
    """What one step changes of pixel values that lie in 0..`value_range` before it."""
    if name in (*SIZES, *FORMAT):
        return {}
    if name == "ToFloat":
        return {"value_range": value_range / (step.get("max_value") or BYTES)}
    if name == "Normalize" and step.get("normalization", "standard") == "standard":
        return {
            "mean": tuple(float(value) for value in step["mean"]),
            "std": tuple(float(value) for value in step["std"]),
            "value_range": value_range / float(step.get("max_pixel_value", BYTES)),
        }
    raise NetworkError(
        f"{label}: its evaluation transform has the step {name}, which cannot be followed; expected Normalize, "
        "ToFloat, and steps that set the size. Make its pixel values yourself and wrap it: Segmenter.wrap."
    )
