"""Exports: the adapted network as a plain module, a state dict, a graph, a delta, or a repository of the hub."""

from allweather.export.delta import apply_delta
from allweather.export.hub import from_hub
from allweather.export.ordinary import Statistics

__all__ = ["Statistics", "apply_delta", "from_hub"]
