"""Adapts any pretrained urban-scene segmentation network to the weather in front of the camera, at test time."""

from allweather import methods
from allweather.classes import CAMVID11, CITYSCAPES, ClassSet
from allweather.data import Frame, load_stream
from allweather.errors import AllWeatherError
from allweather.models import Segmenter, list_models, load_model
from allweather.ncut import Affinity, normalized_cut
from allweather.pictures import read_image
from allweather.session import Guard, Result, Session

__all__ = [
    "CAMVID11",
    "CITYSCAPES",
    "Affinity",
    "AllWeatherError",
    "ClassSet",
    "Frame",
    "Guard",
    "Result",
    "Segmenter",
    "Session",
    "list_models",
    "load_model",
    "load_stream",
    "methods",
    "normalized_cut",
    "read_image",
]
