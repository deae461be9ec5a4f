"""Safetensors files of sessions and deltas, which whoever passes them on may have written: what must hold of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from allweather.errors import CheckpointError, InputError, first_line
from allweather.finite import all_finite
from allweather.values import check_depth

SESSION, DELTA = "allweather.session", "allweather.delta"  # in their metadata, by which each is known


def read_object(path: Path, metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object that the metadata of `path` holds under `key`.

    Raises:
        CheckpointError: where there is none, or something else.
    """
    try:
        content = json.loads(metadata.get(key, ""))
        check_depth(content)
    except (ValueError, RecursionError, InputError) as error:
        raise CheckpointError(f"{path} is damaged: its settings are not readable ({first_line(error)}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged: expected its settings by name, got {content!r:.60}.")
    return content


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuses floating-point tensors of `path` that hold NaN or infinite values, or are of a type without arithmetic.

    Raises:
        CheckpointError: naming the first.
    """
    for name, tensor in tensors.items():
        try:
            finite = not tensor.is_floating_point() or bool(all_finite(tensor))
        except RuntimeError as error:
            raise CheckpointError(f"{path}: {name} is of {tensor.dtype}, which nothing is computed in.") from error
        if not finite:
            raise CheckpointError(f"{path}: {name} holds numbers that are not finite.")
