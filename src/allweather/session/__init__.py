"""Sessions: a method at work on a segmenter."""

from allweather.session.adapted import Precision
from allweather.session.guard import Decision, Guard
from allweather.session.input_scale import ScaleAdvice, advise_scale
from allweather.session.result import Result
from allweather.session.session import AdaptWhen, Session
from allweather.session.shift import Shift

__all__ = ["AdaptWhen", "Decision", "Guard", "Precision", "Result", "ScaleAdvice", "Session", "Shift", "advise_scale"]
