"""Sessions: a method at work on a segmenter."""

from allweather.session.guard import Guard
from allweather.session.learner import Precision
from allweather.session.result import Result
from allweather.session.session import AdaptWhen, Session
from allweather.session.shift import Shift

__all__ = ["AdaptWhen", "Guard", "Precision", "Result", "Session", "Shift"]
