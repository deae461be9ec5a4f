"""Means over figures of which some are not known."""

from collections.abc import Iterable

import numpy as np


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
