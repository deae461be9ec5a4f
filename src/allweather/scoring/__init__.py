"""Scores of predictions against the truth: confusion, intervals, calibration, uncertainty."""

from collections.abc import Callable

from allweather.classes import ClassSet
from allweather.scoring.calibration import Reliability
from allweather.scoring.meter import Meter
from allweather.scoring.uncertainty import UncertaintyAwareIou

METERS: tuple[Callable[[ClassSet], Meter], ...] = (  # of every record, besides what the confusion matrix gives
    lambda classes: Reliability(classes=len(classes)),
    lambda classes: UncertaintyAwareIou(len(classes)),
)
