"""Figures that follow from a record's confusion matrix, computed anew: a new metric fills old records too."""

import numpy as np

from allweather.runs.summary import Record
from allweather.scoring.confusion import ConfusionMatrix


def with_derived_figures(record: Record) -> Record:
    """The record with every figure of `ConfusionMatrix.summary`, whichever its version wrote; others stay as they are.

    A record without a confusion matrix, or with an empty one, is returned as it is.
    """
    if not np.any(record.get("confusion", ())):
        return record
    names, counts = list(record["figures"]["IoU"]), np.array(record["confusion"])
    return {**record, "figures": {**record["figures"], **ConfusionMatrix(len(names), counts).summary(names)}}


def miou_of(record: Record) -> float:
    """mIoU in % over the classes in the record's truth; the official one where it cannot tell which these are.

    Not rounded where the record has its confusion matrix: differences and means are rounded once, when they are shown.
    """
    counts = np.array(record.get("confusion", ()))
    if counts.any():
        return 100 * ConfusionMatrix(len(counts), counts).mean_iou_truth
    found = record["figures"].get("mIoU_truth")
    return float(record["figures"]["mIoU"] if found is None else found)


def not_in_truth(record: Record) -> list[str]:
    """The classes that the record's truth does not hold, as far as the record can tell."""
    return list(record["figures"].get("not_in_truth", ()))
