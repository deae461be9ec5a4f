"""The collapse guard: its limits, the signs of harm, the policy along a stream, and what it decides."""

from allweather.session.guard.decision import KINDS, Decision, Kind
from allweather.session.guard.limits import Guard, guard_of

__all__ = ["KINDS", "Decision", "Guard", "Kind", "guard_of"]
