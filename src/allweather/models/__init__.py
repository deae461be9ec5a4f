"""Networks: the Segmenter contract, the catalogue, and safe checkpoint loading."""

from allweather.models.catalogue import list_models, load_model
from allweather.models.segmenter import AdaptationFacts, Preprocessing, Segmenter

__all__ = ["AdaptationFacts", "Preprocessing", "Segmenter", "list_models", "load_model"]
