"""Sessions: a method at work on a segmenter."""

from allweather.session.guard import Guard
from allweather.session.result import Result
from allweather.session.session import Precision, Session

__all__ = ["Guard", "Precision", "Result", "Session"]
