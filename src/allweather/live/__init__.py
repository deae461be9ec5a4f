"""Live: predictions of a stream as it comes, while the network goes on learning beside them."""

from allweather.live.frame import Event, LiveFrame
from allweather.live.live import Live

__all__ = ["Event", "Live", "LiveFrame"]
