"""What a live run came to: counts, decisions, and latencies in a memory that does not grow."""

from collections import Counter
from dataclasses import dataclass, field
from math import ceil, exp, log
from typing import Any

from allweather.live.frame import Event, Learnt, LiveFrame

LEAST = 1e-5  # seconds; what is shorter counts as this long
STEP = log(1.02)  # each bin is two per cent wider than the last


@dataclass
class Latencies:
    """A histogram of durations whose bins grow by two per cent, so that quantiles are within that."""

    _bins: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        """Takes up a duration."""
        self._bins[round(log(max(seconds, LEAST) / LEAST) / STEP)] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds that this share of the durations does not exceed; None before the first."""
        wanted = ceil(share * self._bins.total())
        for place in sorted(self._bins):
            wanted -= self._bins[place]
            if wanted <= 0:
                return LEAST * exp(place * STEP)
        return None


@dataclass
class Totals:
    """Counts so far.

    Attributes:
        predicted, dropped, learnt: frames.
        arrived: frames that came: at the end those predicted, those dropped, and those of the event `not-finite`.
        states: how many states were handed over.
        decisions: of the frames given to learn from, by kind.
        events: by kind.
        latencies: of the predictions.
        seconds: from the beginning to the last prediction.
        failures: events because of which something is missing from the result.
    """

    predicted: int = 0
    dropped: int = 0
    learnt: int = 0
    arrived: int = 0
    states: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    seconds: float = 0.0
    failures: int = 0

    def show(self, shown: LiveFrame) -> None:
        """Counts a predicted frame."""
        self.predicted += 1
        self.dropped += shown.dropped
        self.latencies.add(shown.latency)
        self.seconds = shown.arrival + shown.latency

    def learn(self, learnt: Learnt) -> None:
        """Counts a frame given to learn from."""
        self.learnt += learnt.adapted
        self.decisions[learnt.decision.kind] += 1
        self.states += learnt.state is not None

    def happen(self, event: Event) -> None:
        """Counts an event."""
        self.events[event.kind] += 1
        self.failures += event.failed

    def facts(self) -> dict[str, Any]:
        """For JSON; times in seconds."""
        middle, late = self.latencies.quantile(0.5), self.latencies.quantile(0.95)
        return {
            "arrived": self.arrived,
            "predicted": self.predicted,
            "dropped": self.dropped,
            "learnt": self.learnt,
            "states": self.states,
            "decisions": dict(self.decisions),
            "events": dict(self.events),
            "seconds": round(self.seconds, 6),
            "latency_median": middle and round(middle, 6),
            "latency_p95": late and round(late, 6),
        }
